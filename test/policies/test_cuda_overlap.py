"""Stages of cuda_graph for two chunks at once, in plain PyTorch without a GPU: what one chunk's
prefix wrote stays as it is while another one's runs. On a GPU: test_cuda_overlap_gpu.py.
"""

from contextlib import ExitStack

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('onnx', reason="needs ONNX: pip install '.[export]'")
pytest.importorskip('ml_dtypes', reason="needs ml_dtypes: pip install '.[export]'")

from fast_bundles import (  # noqa: E402
    ONNX,
    TINY,
    make_bundle,
    platform,
)

from vla_trt_ros.backends.registry import BACKENDS  # noqa: E402
from vla_trt_ros.errors import BackendError, ConfigError  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.network import Network  # noqa: E402
from vla_trt_ros.policies.pi05.engines import load_engines  # noqa: E402
from vla_trt_ros.policies.registry import load_policy_from  # noqa: E402


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('fast') / 'tiny')


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setitem(BACKENDS, 'cuda_graph', 'vla_trt_ros.policies.pi05.cuda.engine:on_cpu')


@pytest.fixture
def turns(bundle):
    with ExitStack() as stack:
        first = load_engines(bundle, TINY, platform(), stack, overlap=True)
        yield first, first.beside


def encode(engines, bucket, seed):
    rng = np.random.default_rng(seed)
    engines.pixels[...] = rng.uniform(-1, 1, engines.pixels.shape)
    engines.noise[...] = rng.standard_normal(engines.noise.shape)
    chain = engines.chains[bucket]
    chain.tokens[...] = rng.integers(0, 700, bucket)
    chain.mask[...] = False
    chain.mask[: TINY.image_tokens] = True
    chain.mask[TINY.image_tokens :][: 5 + seed] = True
    engines.vision.enqueue()
    chain.prefix.enqueue()


def decode(engines, bucket):
    engines.chains[bucket].denoise[3].enqueue()
    return engines.actions.copy()


@pytest.mark.parametrize('buckets', [(24, 24), (24, 48), (48, 24)], ids=str)
def test_actions_are_those_of_one_after_the_other_bit_for_bit(turns, buckets):
    wanted = []
    for seed, bucket in enumerate(buckets):
        encode(turns[0], bucket, seed)
        wanted.append(decode(turns[0], bucket))
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3
    for seed, (engines, bucket) in enumerate(zip(turns, buckets, strict=True)):
        encode(engines, bucket, seed)
    found = [decode(engines, bucket) for engines, bucket in zip(turns, buckets, strict=True)]
    np.testing.assert_array_equal(found, wanted)
    # And the other way round, over what the last chunks left.
    for seed, (engines, bucket) in enumerate(zip(turns[::-1], buckets, strict=True)):
        encode(engines, bucket, seed)
    found = [decode(e, bucket) for e, bucket in zip(turns[::-1], buckets, strict=True)]
    np.testing.assert_array_equal(found, wanted)


def test_what_is_there_twice_and_what_once(turns):
    first, second = turns
    network = first.vision._network
    assert second.vision._network is network
    one, two = network.buffers(0), network.buffers(1)
    for name in ('keys', 'values', 'valid'):
        assert getattr(one, name).data_ptr() != getattr(two, name).data_ptr(), name
        assert getattr(one, name).shape == getattr(two, name).shape
    for name in ('pixels', 'tokens', 'hidden', 'latents', 'cos', 'sin'):
        assert getattr(one, name) is getattr(two, name), name
    assert second.pixels is first.pixels
    for name in ('noise', 'actions'):
        assert not np.shares_memory(getattr(first, name), getattr(second, name)), name
    for bucket, chain in first.chains.items():
        other = second.chains[bucket]
        assert not np.shares_memory(chain.tokens, other.tokens)
        assert not np.shares_memory(chain.mask, other.mask)


def test_without_overlap_there_is_one_of_each(bundle):
    with ExitStack() as stack:
        engines = load_engines(bundle, TINY, platform(), stack)
        assert engines.beside is None
        network = engines.vision._network
        assert len(network._buffers) == network.turns == 1
        with pytest.raises(BackendError, match='overlap was asked for after the weights were lo'):
            engines.vision.beside({})


def test_the_second_set_counts_before_memory_is_taken(bundle):
    needed = []
    for overlap in (False, True):
        network = Network('cpu')
        for stage in ('vision', 'prefix', 'denoise'):
            network.add(stage, network.open(bundle.file('fast.fp32.safetensors')))
        if overlap:
            network.allow_overlap()
        needed.append(network.needed_bytes())
        network.load()
    buffers = network.buffers(1)
    assert needed[1][0] == needed[0][0]
    assert needed[1][1] - needed[0][1] == buffers.keys.nbytes + buffers.values.nbytes


@pytest.mark.parametrize('stage', ['vision', 'prefix', 'denoise'])
def test_a_stage_that_cannot_is_named_before_anything_is_loaded(bundle, stage):
    chosen = platform(**{stage: ONNX})
    message = f'every stage on cuda_graph.*; {stage} of platform here is on onnxruntime. Set over'
    with pytest.raises(ConfigError, match=message):
        load_policy_from(bundle, chosen, overlap=True)
