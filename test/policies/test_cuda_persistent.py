"""All denoise steps in one kernel: it compiles, its weights lie right, it knows its limits.

What it computes is compared with TorchOps on a GPU, in test_cuda_persistent_on_gpu.py.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")

from vla_trt_ros.errors import BackendError  # noqa: E402
from vla_trt_ros.gpu import kernels  # noqa: E402
from vla_trt_ros.policies.pi05.cuda import persistent, prefix_attention  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.fold import FP8, GemmaLayer, Linear  # noqa: E402
from vla_trt_ros.policies.pi05.spec import PI05, ExpertConfig  # noqa: E402


def has_nvrtc():
    try:
        from cuda.bindings import nvrtc

        return nvrtc.nvrtcVersion()[1] >= 13
    except Exception:
        return False


needs_nvrtc = pytest.mark.skipif(
    not has_nvrtc(), reason="needs NVRTC 13: pip install '.[tensorrt]' on x86_64"
)


@needs_nvrtc
@pytest.mark.parametrize('horizon', [1, 10, 50, 64])
def test_the_kernel_compiles(horizon, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    code = kernels.cubin(persistent.SOURCE, persistent.TARGET, persistent.defines(horizon))
    assert code[:4] == b'\x7fELF'
    assert b'denoise' in code


@needs_nvrtc
def test_attention_of_the_prefix_compiles_for_every_size_of_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    code = kernels.cubin(prefix_attention.SOURCE, prefix_attention.TARGET)
    for blocks in range(1, prefix_attention.MOST_BLOCKS + 1):
        assert f'prefix_attention_{blocks}'.encode() in code


@needs_nvrtc
def test_a_gpu_without_its_instructions_is_refused_by_the_compiler():
    with pytest.raises(BackendError, match=r'(?s)denoise.cu for sm_89:'):
        kernels.cubin(persistent.SOURCE, 'sm_89', persistent.defines(50))


@needs_nvrtc
def test_memory_that_is_too_small_for_the_kernel_is_refused_by_the_compiler():
    defines = persistent.defines(50) | {'WORKSPACE': persistent.WORKSPACE // 2}
    with pytest.raises(BackendError, match='persistent.py allocates too little'):
        kernels.cubin(persistent.SOURCE, persistent.TARGET, defines)


@pytest.mark.parametrize(('horizon', 'pace'), [(1, 250), (32, 250), (33, 400), (64, 400)])
def test_every_horizon_has_a_pace(horizon, pace):
    assert persistent.pace(horizon) == pace


@pytest.mark.parametrize(
    'order', [persistent.qkv_rows, persistent.gate_up_rows, persistent.out_columns]
)
def test_every_row_or_column_has_one_place(order):
    found = order()
    assert torch.equal(found.sort().values, torch.arange(len(found)))


def layer_of(value):
    """Products of true size whose weight at [row, column] is ``value`` of them."""

    def product(name, rows, columns):
        weight = value(torch.arange(rows)[:, None], torch.arange(columns)[None]).to(torch.uint8)
        return Linear(name, weight.view(FP8))

    return GemmaLayer(
        product('qkv', 2560, 1024),
        product('out', 1024, 2048),
        product('gate_up', 8192, 1024),
        product('down', 1024, 4096),
    )


def unit(piece, rows, chunk, column, place):
    """16 bytes of a block's slice: of chunk's row ``column``, at ``place``."""
    return piece.reshape(-1, rows, 8, 16)[chunk, column, place].tolist()


def test_a_block_finds_its_slices():
    # Low byte of the row, then of the column's unit of 16, tells what came where.
    by_row = persistent.packed_layer(layer_of(lambda row, column: row + 0 * column))
    by_unit = persistent.packed_layer(layer_of(lambda row, column: column // 16 + 0 * row))
    assert by_row.shape == by_unit.shape == (17_301_504,)
    qkv, out = 2560 * 1024, 1024 * 2048
    heads = by_row[:qkv].reshape(80, -1)
    assert unit(heads[9], 32, 0, 0, 0) == [(256 + 16) % 256] * 16  # head 1, pair 16
    assert unit(heads[9], 32, 7, 1, 3) == [(256 + 16 + 128) % 256] * 16  # its other half
    assert unit(heads[9], 32, 0, 8, 0) == [(256 + 17) % 256] * 16
    assert unit(heads[9], 32, 0, 18, 0) == [(256 + 26) % 256] * 16
    attended = by_row[qkv : qkv + out].reshape(128, -1)
    assert unit(attended[13], 64, 1, 5, 0) == [64 + 5] * 16  # columns 64 to 127, slice 5
    gates = by_row[qkv + out : qkv + out + 8192 * 1024].reshape(128, -1)
    assert unit(gates[3], 64, 0, 0, 0) == unit(gates[3], 64, 0, 1, 0) == [96] * 16
    assert unit(gates[3], 64, 5, 42, 0) == [96 + 16 + 4 + 1] * 16
    down = by_unit[qkv + out + 8192 * 1024 :].reshape(128, -1)
    for column in (0, 3, 9, 63):
        for place in (0, 5):  # slice 2 of 512 columns, chunk 3
            expected = (2 * 512 + 3 * 128) // 16 + (place ^ column % 8)
            assert unit(down[8 + 2], 64, 3, column, place) == [expected] * 16


def network(**changes):
    layers = (layer_of(lambda row, column: row * 0 + column * 0),) * 18
    embedding = SimpleNamespace(device=torch.device('cpu'))
    return SimpleNamespace(**{'config': PI05, 'expert': layers, 'embedding': embedding, **changes})


def buffers(positions=968 + 64):
    return SimpleNamespace(cos=torch.zeros(positions, 1), rows=64)


PLAIN = GemmaLayer(*(Linear(n, torch.zeros(2, 2)) for n in ('qkv', 'out', 'gate_up', 'down')))


@pytest.mark.parametrize(
    ('weights', 'positions', 'reason'),
    [
        (network(), 1032, 'the GPU has not compute capability 9.0'),
        (network(), 1200, '1186 keys are more than 1024'),
        (
            network(config=replace(PI05, expert=ExpertConfig(160, 384))),
            1032,
            r'the expert has sizes \(160, 384, 8, 256, 32\)',
        ),
        (network(config=replace(PI05, horizon=65)), 1032, 'horizon 65 is longer than 64'),
        (network(expert=(PLAIN, PLAIN)), 1032, 'the expert is not FP8'),
        (
            network(expert=(layer_of(lambda row, column: row * 0 + column * 0),)),
            1032,
            '1 layers are an odd number',
        ),
    ],
)
def test_what_it_does_not_serve_is_named(weights, positions, reason):
    with pytest.raises(BackendError, match=f'denoise steps in one kernel: {reason}'):
        persistent.PersistentDenoise(weights, buffers(positions))
