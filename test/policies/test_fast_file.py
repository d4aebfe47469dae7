"""fast.<precision>.safetensors: whole, read a stage at a time, refused when it is not right."""

import dataclasses
import json

import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")

from vla_trt_ros.backends.base import EngineSource  # noqa: E402
from vla_trt_ros.errors import BackendError  # noqa: E402
from vla_trt_ros.export.pi05.fast import fast_engines  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.fast_file import (  # noqa: E402
    PARTS,
    file_name,
    open_fast_file,
    write_fast_file,
)
from vla_trt_ros.policies.pi05.cuda.fold import fold  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.quantize import Ranges, quantize  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.tables import step_tables  # noqa: E402
from vla_trt_ros.policies.pi05.spec import (  # noqa: E402
    NANO,
    ExpertConfig,
    PrefixConfig,
    VisionConfig,
)

TINY = dataclasses.replace(
    NANO,
    image_size=28,
    vision=VisionConfig(width=32, depth=1, heads=2, mlp=48),
    prefix=PrefixConfig(width=48, depth=2, heads=2, kv_heads=1, head_dim=16, mlp=64),
    expert=ExpertConfig(width=32, mlp=48),
    vocab_size=64,
    num_steps=(1, 3),
)
on_cpu = pytest.importorskip('vla_trt_ros.policies.pi05.cuda.engine').on_cpu


@pytest.fixture(scope='module')
def network():
    load = dict(random_model(TINY, 0).named_parameters()).__getitem__
    weights = fold(TINY, load, torch.bfloat16)
    ranges = Ranges({x.name: 2.0 + i for i, x in enumerate(weights.linears())})
    ranges.largest |= {f'prefix.{i}.gate_up output': 5.0 for i in range(2)}
    return quantize(weights, ranges), {n: step_tables(weights, load, n) for n in (1, 3)}


@pytest.fixture
def path(network, tmp_path):
    where = tmp_path / file_name('fp8')
    told = []
    write_fast_file(where, *network, 'fp8', '8 frames', (told.append(i) for i in range(500)))
    assert len(told) == 500
    return where


def entry(stage='denoise', config=TINY):
    return next(e for e in fast_engines(config, 'fp8') if e.stage == stage)


def source(path, stage='denoise', **change):
    e = entry(stage)
    made = EngineSource(
        stage, path, e.inputs, e.outputs, 'fp8', 1, stage, e.prompt_bucket, e.num_steps
    )
    return dataclasses.replace(made, **change)


def same(a, b):
    return a is b is None or (a.dtype == b.dtype and torch.equal(a.float(), b.float()))


def test_every_number_comes_back(network, path):
    weights, tables = network
    file = open_fast_file(path)
    assert (file.config, file.precision, file.num_steps) == (TINY, 'fp8', (1, 3))
    assert file.calibrated_with == '8 frames'
    back = file.load(PARTS, 'cpu')
    pairs = zip(weights.linears(), back.linears(), strict=True)
    for a, b in (*pairs, (weights.patch, back.patch), (weights.action_in, back.action_in)):
        assert a.name == b.name
        for part in ('weight', 'bias', 'scale', 'act_scale'):
            assert same(getattr(a, part), getattr(b, part)), (a.name, part)
        assert (b.act, b.result) == pytest.approx((a.act, a.result), rel=1e-6)
    assert back.prefix[0].gate_up.result > 0
    assert back.prefix[1].down is None
    assert same(weights.embedding, back.embedding)
    assert same(weights.position, back.position)
    for count, table in file.load_tables('cpu').items():
        for name in table.__dataclass_fields__:
            assert same(getattr(table, name), getattr(tables[count], name))


def test_a_stage_is_loaded_alone(path):
    file = open_fast_file(path)
    loaded = file.load(('denoise',), 'cpu')
    assert loaded.expert[1].down.weight.numel() == 32 * 48
    assert loaded.embedding.numel() == loaded.vision[0].qkv.weight.numel() == 0
    sizes = [file.part_bytes(stage) for stage in PARTS]
    assert min(sizes) > 0
    assert sum(sizes) == path.stat().st_size - 8 - (512 << 10)


def test_other_programs_can_read_it(path):
    safe_open = pytest.importorskip('safetensors').safe_open
    with safe_open(path, 'pt') as file:
        assert file.metadata()['precision'] == 'fp8'
        assert file.get_tensor('expert.0.qkv.weight').dtype == torch.float8_e4m3fn
        assert file.get_tensor('steps.3.factor').shape == (3, 5, 32)


def test_a_file_that_is_missing_or_cut(path, tmp_path):
    with pytest.raises(BackendError, match='none.safetensors does not exist; .*--backend cuda_gr'):
        open_fast_file(tmp_path / 'none.safetensors')
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(BackendError, match=f'is truncated: {len(data) - 10} of {len(data)} bytes'):
        open_fast_file(path)
    path.write_bytes(data + b'x')
    with pytest.raises(BackendError, match='is too long'):
        open_fast_file(path)
    for start in (data[:5], data[:3000], b'PK' + data[2:]):
        path.write_bytes(start)
        with pytest.raises(BackendError, match='truncated or no file of tensors'):
            open_fast_file(path)


def altered(path, change):
    """The file with another header."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(data[:8] + text + data[8 + length :])
    return path


def test_a_file_of_another_version(path):
    altered(path, lambda h: h['__metadata__'].update(format='7'))
    with pytest.raises(BackendError, match="is of format '7', this release reads '2'; export"):
        open_fast_file(path)


@pytest.mark.parametrize(
    'change',
    [{'config': '{"image_size": 3}'}, {'config': 'no'}, {'num_steps': '3'}, {'precision': 'int4'}],
    ids=str,
)
def test_a_header_that_makes_no_sense(path, change):
    altered(path, lambda h: h['__metadata__'].update(change))
    with pytest.raises(BackendError, match='its header cannot be used'):
        open_fast_file(path)


def test_a_tensor_that_is_not_there(path):
    altered(path, lambda h: h.update(other=h.pop('expert.1.out.weight')))
    engine = on_cpu(source(path), {})
    with pytest.raises(BackendError, match="lacks the tensor 'expert.1.out.weight'; export"):
        engine.enqueue()


def test_engines_of_another_manifest_are_refused(path):
    with pytest.raises(BackendError, match='is fp8, the manifest says bf16'):
        on_cpu(source(path, precision='bf16'), {})
    with pytest.raises(BackendError, match=r'has tables for \[1, 3\] steps; .* --steps 5'):
        on_cpu(source(path, num_steps=5), {})
    other = entry(config=dataclasses.replace(TINY, horizon=9))
    with pytest.raises(BackendError, match='is of another network than the manifest'):
        on_cpu(source(path, inputs=other.inputs), {})
    with pytest.raises(BackendError, match='the bundle names no file'):
        on_cpu(source(path, file=None), {})


def test_files_of_two_networks_do_not_mix(network, path, tmp_path):
    weights, tables = network
    other = dataclasses.replace(weights, config=dataclasses.replace(TINY, horizon=9))
    second = tmp_path / 'second.safetensors'
    write_fast_file(second, other, tables, 'fp8')
    first = source(path, 'vision')
    on_cpu(first, {})
    e = entry('prefix', other.config)
    with pytest.raises(BackendError, match='are of different networks; export'):
        on_cpu(
            dataclasses.replace(
                first, name='prefix', file=second, stage='prefix', inputs=e.inputs,
                outputs=e.outputs, prompt_bucket=e.prompt_bucket,
            ),
            {},
        )  # fmt: skip


def test_several_key_value_heads_are_refused(tmp_path):
    config = dataclasses.replace(TINY, prefix=dataclasses.replace(TINY.prefix, kv_heads=2))
    load = dict(random_model(config, 0).named_parameters()).__getitem__
    where = tmp_path / 'fast.safetensors'
    write_fast_file(where, fold(config, load, torch.bfloat16), {}, 'bf16')
    e = next(e for e in fast_engines(config, 'bf16') if e.stage == 'prefix')
    made = EngineSource('prefix', where, e.inputs, e.outputs, 'bf16', 1, 'prefix', e.prompt_bucket)
    with pytest.raises(BackendError, match='serves one key-value head, this network has 2'):
        on_cpu(made, {})
