"""Precisions against float32."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[export]'")
onnx = pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")

from vla_trt_ros.bundle import open_bundle  # noqa: E402
from vla_trt_ros.cli.main import main  # noqa: E402
from vla_trt_ros.config import find_file  # noqa: E402
from vla_trt_ros.errors import BackendError, ConfigError  # noqa: E402
from vla_trt_ros.export.evaluate import load_graph  # noqa: E402
from vla_trt_ros.export.frames import synthetic_frames  # noqa: E402
from vla_trt_ros.export.graphs import network_inputs  # noqa: E402
from vla_trt_ros.export.parity import (  # noqa: E402
    Chains,
    Score,
    as_json,
    cosine,
    failures,
    gripper_column,
    judge,
    parse_gates,
)

NANO = find_file('bundles', 'nano', '')
BUNDLE = open_bundle(NANO)
STEPS = (1, 3)


@pytest.fixture(scope='module')
def scores(tmp_path_factory):
    frames = synthetic_frames(BUNDLE, 3, ['reach the goal'], size=64)
    chains = Chains(BUNDLE, tmp_path_factory.mktemp('made'), None, STEPS)
    inputs = network_inputs(BUNDLE, frames.observations)
    found = judge(chains, inputs, ['fp32', 'fp16', 'bf16', 'int4'], STEPS, columns=4, gripper=3)
    assert chains.made == {'fp16', 'bf16', 'int4'}
    return {(s.precision, s.part, s.steps): s for s in found}


def test_float32_against_itself_is_exact(scores):
    for part, steps in [('vision', None), ('prefix', None), ('policy', 1), ('policy', 3)]:
        score = scores['fp32', part, steps]
        assert score.worst == pytest.approx(1.0, abs=1e-12)
        assert score.max_abs == 0
        assert score.sign_flips == 0


def test_finer_precisions_are_nearer(scores):
    for part, steps in [('vision', None), ('denoise', 3), ('policy', 1)]:
        fp16, bf16, int4 = (scores[p, part, steps].cosine for p in ('fp16', 'bf16', 'int4'))
        assert int4 < bf16 < fp16 < 1
    assert scores['bf16', 'vision', None].cosine > 0.999
    assert scores['bf16', 'policy', 1].cosine > 0.99
    assert 0.5 < scores['int4', 'policy', 1].cosine < 0.99


def test_a_stage_alone_is_judged_on_exact_inputs(scores):
    assert scores['int4', 'denoise', 1].cosine > scores['int4', 'policy', 1].cosine


def test_a_refused_stage_is_not_judged_and_the_policy_says_what_ran(scores):
    assert ('fp16', 'prefix', None) not in scores
    assert scores['fp16', 'policy', 1].note == 'prefix in bf16'
    assert scores['bf16', 'policy', 1].note == ''


def test_the_worst_frame_is_named(scores):
    score = scores['int4', 'policy', 3]
    assert score.worst < score.cosine
    assert 0 <= score.worst_frame < 3


def test_cosine():
    a = np.array([3.0, 4.0])
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, np.array([-4.0, 3.0])) == pytest.approx(0)
    assert cosine(a, -a) == pytest.approx(-1)
    assert cosine(a, 0 * a) == 0
    assert cosine(0 * a, 0 * a) == 1


class FakeChains:
    """A denoise stage that gives ``actions``; float32 gives ``exact``."""

    def __init__(self, exact, actions):
        self.outputs = {'fp32': exact, 'bf16': actions}

    def graph(self, stage, precision, key):
        self.stage, self.precision = stage, precision
        actions = self.outputs[precision]
        found = {
            'vision': {'image_tokens': np.ones((1, 2, 3))},
            'prefix': {'keys': np.ones(3), 'values': np.ones(3)},
            'denoise': {'actions': actions},
        }[stage]

        class Fixed:
            def run(self, inputs):
                return found

        return Fixed()

    def forget(self):
        pass


def judged(exact, actions, **kwargs):
    scores = judge(
        FakeChains(exact, actions), [{'tokens': np.zeros((1, 32))}], ['bf16'], [1], **kwargs
    )
    return next(s for s in scores if s.part == 'policy')


def test_sign_flips_are_counted_in_the_grippers_column_alone():
    exact = np.tile(np.array([0.5, -0.5, 0.9, -0.2]), (1, 6, 1))
    actions = exact.copy()
    actions[0, 2:5, 1] *= -1
    actions[0, 1, 0] *= -1
    assert judged(exact, actions, columns=3, gripper=1).sign_flips == 3
    assert judged(exact, actions, columns=3).sign_flips == 0


def test_columns_that_are_not_the_robots_do_not_count():
    exact = np.ones((1, 5, 4))
    actions = exact.copy()
    actions[..., 3] = -50
    score = judged(exact, actions, columns=3)
    assert score.cosine == pytest.approx(1)
    assert score.max_abs == 0


def test_nan_is_an_error_and_no_score():
    exact = np.ones((1, 5, 4))
    bad = exact.copy()
    bad[0, 0, 0] = np.nan
    with pytest.raises(BackendError, match='denoise bf16 gave NaN or Inf'):
        judged(exact, bad, columns=4)


def test_gates():
    assert parse_gates('0.9', ['bf16', 'fp8']) == {'bf16': 0.9, 'fp8': 0.9}
    assert parse_gates('0.9,fp8=0.5', ['bf16', 'fp8']) == {'bf16': 0.9, 'fp8': 0.5}
    assert parse_gates('', ['bf16']) == {}
    for text in ('high', 'fp8=', 'fp8=2'):
        with pytest.raises(ConfigError, match='write a cosine such as 0.999'):
            parse_gates(text, ['fp8'])
    with pytest.raises(ConfigError, match="'fp9' is none of"):
        parse_gates('fp9=0.9', ['fp8'])
    low = Score('fp8', 'policy', 3, 0.97, 0.9, 0, 0.1, 0)
    stage = Score('fp8', 'prefix', None, 0.1, 0.1, 0, 0.1, 0)
    assert failures([low, stage], {'fp8': 0.98}) == [
        'fp8 at 3 steps: cosine 0.97000 is below the gate 0.98'
    ]
    assert failures([low], {'fp8': 0.97, 'bf16': 1.0}) == []


def test_the_gripper_is_found_by_name():
    assert gripper_column(BUNDLE) == 3
    assert gripper_column(BUNDLE, 'hand_y') == 1
    with pytest.raises(ConfigError, match="--gripper 'claw' is none of hand_x"):
        gripper_column(BUNDLE, 'claw')


def test_rows_for_a_file():
    (row,) = as_json([Score('fp8', 'vision', None, 0.97000004, 0.9, 2, 0.1, 0)])
    assert row == {
        'precision': 'fp8',
        'part': 'vision',
        'cosine': 0.97,
        'worst': 0.9,
        'worst_frame': 2,
        'max_abs': 0.1,
        'sign_flips': 0,
    }


def parity(*words):
    return main(['parity', '--bundle', str(NANO), '--count', '16', '--steps', '1', *words])


def test_the_command_prints_writes_and_keeps_the_gate(tmp_path, capsys):
    pytest.importorskip('matplotlib', reason="the plot needs matplotlib: pip install '.[sim]'")
    out, plot = tmp_path / 'parity.json', tmp_path / 'parity.png'
    words = ['--precision', 'int8', '--json', str(out), '--plot', str(plot)]
    assert parity(*words, '--gate', 'int8=0.9') == 0
    printed = capsys.readouterr().out
    assert '8 frames of 16 made-up pictures, seed 0 (scales from 8 others)' in printed
    assert 'int8       policy' in printed
    record = json.loads(out.read_text())
    assert record['bundle_sha256'] == BUNDLE.sha256
    assert (record['calibrated_on'], record['judged_on'], record['gripper']) == (8, 8, 'gripper')
    assert [s['part'] for s in record['scores']] == ['vision', 'prefix', 'denoise', 'policy']
    assert plot.stat().st_size > 10_000
    assert parity('--precision', 'int8', '--gate', '0.99999') == 1
    assert 'FAILED int8 at 1 steps: cosine 0.9' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        (['--precision', 'int3'], "precision 'int3' is none of fp32"),
        (['--count', '9'], '9 frames are too few; 16 at least'),
        (['--steps', '4'], '4'),
        (['--gate', 'low'], "--gate 'low': write a cosine"),
        (['--frames', 'nowhere'], 'nowhere is no source of frames'),
        (['--gripper', 'claw'], "--gripper 'claw' is none of"),
    ],
)
def test_what_the_command_refuses(capsys, words, complaint):
    assert parity(*words) == 1
    assert complaint in capsys.readouterr().err


def test_a_graph_that_was_edited_after_export_is_refused(tmp_path, capsys):
    path = shutil.copytree(NANO, tmp_path / 'nano')
    model = onnx.load(path / 'vision.onnx', load_external_data=False)
    model.graph.node[5].name = 'edited'
    (path / 'vision.onnx').write_bytes(model.SerializeToString())
    assert main(['parity', '--bundle', str(path)]) == 1
    error = capsys.readouterr().err
    assert 'vision.onnx' in error
    assert 'altered' in error or 'too long' in error or 'truncated' in error


def test_a_graph_that_neither_runtime_reads(tmp_path):
    (tmp_path / 'x.onnx').write_text('no graph')
    with pytest.raises(BackendError, match='x.onnx cannot be loaded'):
        load_graph(tmp_path / 'x.onnx')


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_figures_of_nano_are_those_on_record(tmp_path, capsys):
    """A minute: every precision at 1 and 10 steps, as docs/precisions.md shows them."""
    recorded = Path(__file__).parents[2] / 'benchmarks' / 'parity-nano-made-up.json'
    if not recorded.is_file():
        pytest.skip('the benchmarks are not beside the tests')
    before = json.loads(recorded.read_text())
    out = tmp_path / 'parity.json'
    gates = ','.join(f'{name}={value}' for name, value in before['gates'].items())
    words = ['--bundle', str(NANO), '--steps', '1,10', '--gate', gates, '--json', str(out)]
    assert main(['parity', *words]) == 0
    found = {
        (s['precision'], s['part'], s.get('steps')): s['cosine']
        for s in json.loads(out.read_text())['scores']
    }
    wanted = [s for s in before['scores'] if s.get('steps') in (None, 1, 10)]
    assert len(found) == len(wanted) == 35
    for s in wanted:
        now = 1 - found[s['precision'], s['part'], s.get('steps')]
        assert now == pytest.approx(1 - s['cosine'], rel=0.3, abs=1e-4), s
