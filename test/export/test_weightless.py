"""Graphs traced without weights: what is folded, what is named, and bfloat16 numbers."""

import copy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")
onnx = pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")
pytest.importorskip('safetensors', reason="workshop only: pip install '.[export]'")

from random_checkpoints import TINY  # noqa: E402

from vla_trt_ros.export.evaluate import load_graph  # noqa: E402
from vla_trt_ros.export.pi05.parameters import (  # noqa: E402
    ModelParameters,
    load_model,
    parameter_dtype,
    skeleton,
)
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.export.pi05.stages import (  # noqa: E402
    DenoiseStepStage,
    PrefixStage,
    VisionStage,
)
from vla_trt_ros.export.to_onnx import trace_stage  # noqa: E402
from vla_trt_ros.export.weightless import Recipe, is_pending  # noqa: E402
from vla_trt_ros.export.weights import WeightFile  # noqa: E402
from vla_trt_ros.policies.pi05.spec import (  # noqa: E402
    denoise_step_spec,
    prefix_spec,
    vision_spec,
)

UP = 'language_model.layers.1.mlp.up_proj.weight'
NORM = 'language_model.layers.1.input_layernorm.weight'


@pytest.fixture(scope='module')
def source():
    return ModelParameters(random_model(TINY, seed=4))


def trace_prefix():
    return trace_stage(
        PrefixStage(skeleton(TINY, torch.bfloat16)), prefix_spec(TINY, 6, 'bfloat16')
    )


@pytest.fixture(scope='module')
def traced_prefix():
    return trace_prefix()


@pytest.fixture
def traced(traced_prefix):
    return copy.deepcopy(traced_prefix)  # writing it adds to it


def test_weights_are_named_as_in_the_checkpoint_and_folded(traced):
    assert traced.recipes[UP] == Recipe(UP, torch.bfloat16, transpose=True)
    assert traced.recipes[NORM] == Recipe(NORM, torch.float32, add=1.0)
    held = {t.name: t for t in traced.model.graph.initializer}
    assert {name for name, t in held.items() if is_pending(t)} == set(traced.recipes)
    assert list(held[UP].dims) == [16, 24]  # [K, N], as MatMul takes it
    products = {n.input[1]: n.op_type for n in traced.model.graph.node if len(n.input) == 2}
    assert products[UP] == 'MatMul'
    assert [v.name for v in traced.model.graph.input] == ['image_tokens', 'tokens', 'prefix_mask']


def test_weights_that_no_output_needs_are_left_out(traced):
    held = traced.recipes
    assert 'language_model.layers.2.self_attn.k_proj.weight' in held
    assert not [n for n in held if n.startswith(('expert', 'vision', 'time_mlp'))]
    assert 'language_model.layers.2.self_attn.q_proj.weight' not in held


def test_what_is_small_and_touches_the_latent_stays_float32():
    half = torch.bfloat16
    for name in (
        NORM,
        'expert.norm.dense.weight',
        'action_in_proj.weight',
        'time_mlp_out.bias',
        'vision_tower.embeddings.patch_embedding.weight',
    ):
        assert parameter_dtype(name, half) == torch.float32, name
    for name in (UP, 'vision_tower.post_layernorm.weight', 'expert.layers.0.mlp.up_proj.weight'):
        assert parameter_dtype(name, half) == half, name


def test_a_weight_is_written_once_for_all_graphs(source, traced, tmp_path):
    read = []

    def load(name):
        read.append(name)
        return source.load(name)

    with WeightFile(tmp_path / 'prefix.weights') as weights:
        for file, graph in (('a.onnx', traced), ('b.onnx', trace_prefix())):
            weights.save_traced(graph, tmp_path / file, load)
    assert len(read) == len(set(read)) > 15
    a, b = (onnx.load(tmp_path / file) for file in ('a.onnx', 'b.onnx'))
    assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)
    up = next(t for t in a.graph.initializer if t.name == UP)
    stored = torch.frombuffer(bytearray(up.raw_data), dtype=torch.bfloat16).reshape(16, 24)
    assert torch.equal(stored, source.load(UP).to(torch.bfloat16).T)


def test_pending_weights_need_a_checkpoint(traced, tmp_path):
    with (
        WeightFile(tmp_path / 'w') as weights,
        pytest.raises(KeyError, match='embed_tokens.weight'),
    ):
        weights.save(traced.model, tmp_path / 'a.onnx')


@pytest.mark.parametrize('stage', ['vision', 'prefix', 'denoise'])
def test_bfloat16_graphs_compute_what_torch_does(source, tmp_path, stage):
    """By onnx's reference evaluator; both round to 8 bits, in places of their own."""
    half = torch.bfloat16
    model, empty = load_model(source, half), skeleton(TINY, half)
    generator = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    mask = torch.ones(1, 14, dtype=torch.bool)
    mask[0, 4:8] = mask[0, 12:] = False
    keys, values = (normal(3, 1, 1, 14, 6).to(half) for _ in range(2))
    module, spec, given = {
        'vision': (VisionStage, vision_spec(TINY, 'bfloat16'), (normal(2, 3, 28, 28),)),
        'prefix': (
            PrefixStage,
            prefix_spec(TINY, 6, 'bfloat16'),
            (normal(1, 8, 16).to(half), torch.tensor([[2, 9, 4, 7, 0, 0]]), mask),
        ),
        'denoise': (
            DenoiseStepStage,
            denoise_step_spec(TINY, 6, 'bfloat16'),
            (normal(1, 5, 8), 0.5 * normal(7, 24), keys, values, mask),
        ),
    }[stage]
    with WeightFile(tmp_path / 'w') as weights:
        weights.save_traced(trace_stage(module(empty), spec), tmp_path / 'g.onnx', source.load)
    onnx.checker.check_model(str(tmp_path / 'g.onnx'), full_check=True)
    with torch.no_grad():
        outputs = module(model)(*given)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    arrays = [t.float().numpy() if t.is_floating_point() else t.numpy() for t in given]
    found = load_graph(tmp_path / 'g.onnx').run(
        {t.name: a for t, a in zip(spec.inputs, arrays, strict=True)}
    )
    for tensor, expected in zip(spec.outputs, outputs, strict=True):
        got, wanted = np.asarray(found[tensor.name], np.float32), expected.float().numpy()
        if stage == 'prefix':
            got, wanted = (x[..., mask[0].numpy(), :] for x in (got, wanted))
        assert np.linalg.norm(got - wanted) < 0.02 * np.linalg.norm(wanted), tensor.name


def test_memory_of_a_skeleton_is_none():
    model = skeleton(replace(TINY, vocab_size=10**9), torch.bfloat16)
    assert all(p.is_meta for p in model.parameters())
