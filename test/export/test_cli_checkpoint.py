"""vla-trt export --checkpoint, at nano size: both layouts end as the same bundle."""

import copy
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")
pytest.importorskip('safetensors', reason="workshop only: pip install '.[export]'")

from random_checkpoints import write_lerobot, write_openpi  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from vla_trt_ros.bundle import open_bundle  # noqa: E402
from vla_trt_ros.cli.export import SIZES  # noqa: E402
from vla_trt_ros.cli.main import main  # noqa: E402
from vla_trt_ros.config import load_platform, share_dir  # noqa: E402
from vla_trt_ros.datatypes import CameraFrame, Observation  # noqa: E402
from vla_trt_ros.export.pi05 import trace  # noqa: E402
from vla_trt_ros.export.pi05.checkpoint_folder import write_checkpoint  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.export.weights import WeightFile  # noqa: E402
from vla_trt_ros.policies.pi05.spec import NANO  # noqa: E402
from vla_trt_ros.policies.registry import load_policy_from  # noqa: E402
from vla_trt_ros.preprocess.normalize import NormStats  # noqa: E402

VOCABULARY = share_dir() / 'bundles' / 'nano' / 'tokenizer.model'
FLAT = replace(NANO, vision=replace(NANO.vision, depth=1), prefix=replace(NANO.prefix, depth=2))
SMALL = ['--size', 'nano', '--steps', '1,2', '--buckets', '32']


@pytest.fixture(scope='module')
def model():
    return random_model(FLAT, seed=5)


@pytest.fixture(autouse=True)
def nano_is_flat(monkeypatch):
    """A network with fewer layers: its graphs are traced in a third of the time."""
    monkeypatch.setitem(SIZES, 'nano', FLAT)


@pytest.fixture(scope='module', autouse=True)
def traced_once():
    """A graph knows no weights: one trace serves all checkpoints of a network."""
    trace_stage, made = trace.trace_stage, {}

    def cached(stage, spec):
        key = (type(stage), stage.model.config, spec)
        if key not in made:
            made[key] = trace_stage(stage, spec)
        return copy.deepcopy(made[key])

    trace.trace_stage = cached
    yield
    trace.trace_stage = trace_stage


@pytest.fixture
def openpi(model, tmp_path):
    return write_openpi(tmp_path / 'openpi', model)


def export(checkpoint, out, *words):
    given = ['--tokenizer', str(VOCABULARY), '--precision', 'fp32', *SMALL]
    return main(['export', '--checkpoint', str(checkpoint), '--out', str(out), *given, *words])


def infer(out, platform='cpu'):
    pixels = (np.arange(112 * 112 * 3) // 150 % 256).astype(np.uint8)
    frame = CameraFrame(1, 1, '', 'rgb8', 112, 112, 336, pixels)
    observation = Observation({'base': frame}, np.float32([0.1, 0.6, 0.2, 1]), 'open the door')
    noise = np.sin(np.arange(320, dtype=np.float32)).reshape(10, 32)
    policy = load_policy_from(open_bundle(out), load_platform(platform))
    try:
        return policy.infer(observation, num_steps=2, noise=noise).actions
    finally:
        policy.close()


def test_both_layouts_make_the_same_policy(model, openpi, tmp_path, capsys):
    lerobot = write_lerobot(tmp_path / 'lerobot', model)
    same = ['--state', 'real', '--actions', 'delta']
    assert export(openpi, tmp_path / 'a', *same) == 0
    assert export(lerobot, tmp_path / 'b', *same) == 0
    assert '4 graphs' in capsys.readouterr().out
    a, b = infer(tmp_path / 'a'), infer(tmp_path / 'b')
    np.testing.assert_array_equal(a, b)
    assert np.abs(a).max() > 0.1
    bundle = open_bundle(tmp_path / 'b')
    assert bundle.manifest.notes['weights'] == 'checkpoint lerobot'
    assert 'lerobot layout' in (bundle.path / 'README.md').read_text()


def test_what_the_checkpoint_says_is_kept(model, tmp_path):
    lerobot = write_lerobot(tmp_path / 'lerobot', model, mode='MEAN_STD')
    (lerobot / 'tokenizer.model').write_bytes(VOCABULARY.read_bytes())
    record = tmp_path / 'record.json'
    words = ['export', '--checkpoint', str(lerobot), '--out', str(tmp_path / 'b'), *SMALL]
    assert main([*words, '--precision', 'bf16', '--json', str(record)]) == 0
    bundle = open_bundle(tmp_path / 'b')
    assert bundle.config['prompt_state'] == 'padded'
    assert bundle.manifest.normalization == 'mean_std'
    assert {a.kind for a in bundle.layout.actions} == {'absolute'}
    assert bundle.manifest.engines == ()
    (prefix,) = bundle.sources('prefix', 'bf16')
    assert prefix.file == 'prefix_32.bf16.onnx'
    assert [t.dtype for t in prefix.outputs] == ['bfloat16', 'bfloat16']
    assert prefix.weights == ('prefix.bf16.weights',)
    told = json.loads(record.read_text())
    assert list(told['graph_s']) == [
        'vision bf16',
        'prefix_32 bf16',
        *(f'denoise_32_{n} bf16' for n in (1, 2)),
    ]
    assert told['file_bytes']['prefix.bf16.weights'] > 5e5
    assert 0 < told['peak_memory_gb'] < 4


@pytest.mark.slow
def test_weights_are_read_in_the_asked_precision(model, openpi, tmp_path):
    assert export(openpi, tmp_path / 'b', '--precision', 'fp32,bf16') == 0
    bundle = open_bundle(tmp_path / 'b')
    assert {s.precision for s in bundle.manifest.sources} == {'fp32', 'bf16'}
    assert {e.precision for e in bundle.manifest.engines} == {'fp32'}
    single, half = (
        bundle.file(name).stat().st_size for name in ('prefix.weights', 'prefix.bf16.weights')
    )
    assert 0.5 < half / single < 0.51


@pytest.mark.slow
def test_quantised_graphs_are_made_from_the_exported_ones(openpi, tmp_path):
    assert export(openpi, tmp_path / 'b', '--precision', 'int4,fp16', '--steps', '1') == 0
    bundle = open_bundle(tmp_path / 'b')
    held = {(s.stage, s.precision) for s in bundle.manifest.sources}
    assert {('prefix', 'int4'), ('vision', 'fp16'), ('denoise', 'int4')} <= held
    assert ('prefix', 'fp16') not in held  # its residual overflows


@pytest.fixture
def own(model, tmp_path):
    """A checkpoint of one's own training, of sizes that no --size has."""
    columns = np.arange(4.0)
    stats = NormStats(columns, columns * 0 + 0.5, columns - 1, columns + 1.5)
    return write_checkpoint(
        tmp_path / 'own',
        replace(FLAT, prompt_buckets=(20,), num_steps=(1, 2)),
        model.state_dict(),
        robot='metaworld',
        norm_stats={'state': stats, 'actions': stats},
        vocabulary=VOCABULARY.read_bytes(),
    )


def test_a_checkpoint_of_ones_own_needs_no_sizes(own, tmp_path, capsys):
    (tmp_path / 'card.md').write_text('# Mine\nTrained on seeds 0 to 9.\n')
    out = tmp_path / 'b'
    words = ['--store', 'fp16', '--precision', 'fp32,int8', '--cpu-only', '--licence', 'MIT']
    words += ['--card', str(tmp_path / 'card.md')]
    assert main(['export', '--checkpoint', str(own), '--out', str(out), *words]) == 0
    assert '8 graphs' in capsys.readouterr().out
    bundle = open_bundle(out)
    assert bundle.config['prompt_buckets'] == [20]
    assert bundle.config['vision']['depth'] == 1
    assert (bundle.path / 'README.md').read_text().startswith('# Mine')
    notes = bundle.manifest.notes
    assert (notes['licence'], notes['weights_rounded_to']) == ('MIT', 'float16')
    kinds = {a.joint: a.kind for a in bundle.layout.actions}
    assert kinds == dict(hand_x='delta', hand_y='delta', hand_z='delta', gripper='absolute')
    assert {s.precision for s in bundle.manifest.sources} == {'fp32'}
    assert {e.precision for e in bundle.manifest.engines} == {'fp32', 'int8'}
    assert {p.name for p in out.iterdir()} == {
        *bundle.manifest.files,
        'README.md',
        'manifest.json',
    }
    exact, rounded = infer(out), infer(out, 'cpu-int8')
    assert 1e-4 < np.linalg.norm(exact - rounded) / np.linalg.norm(exact) < 0.2


@pytest.mark.slow
def test_half_storage_is_exact_once_the_weights_are_rounded(own, tmp_path):
    """Stored in 16 bits or in 32: the same rounded network, bit for bit."""
    rounded = load_file(own / 'model.safetensors')
    halves = tmp_path / 'halves'
    shutil.copytree(own, halves)
    save_file({n: w.half().float() for n, w in rounded.items()}, halves / 'model.safetensors')
    words = ['export', '--size', 'nano', '--precision', 'fp32']
    for checkpoint, store, out in ((own, 'fp16', 'a'), (halves, 'fp32', 'b'), (own, 'fp32', 'c')):
        more = ['--checkpoint', str(checkpoint), '--store', store, '--out', str(tmp_path / out)]
        assert main([*words, *more]) == 0
    a, b, c = (infer(tmp_path / out) for out in 'abc')
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0
    small, large = ((tmp_path / out / 'prefix.weights').stat().st_size for out in ('a', 'b'))
    assert 0.49 < small / large < 0.51


@pytest.mark.parametrize(
    ('words', 'match'),
    [
        (['--store', 'fp16', '--precision', 'bf16'], '--store fp16 is for fp32 graphs'),
        (['--cpu-only', '--precision', 'int8,fp8'], '--cpu-only: fp8 is for GPUs alone'),
        (['--card', 'nowhere.md'], '--card nowhere.md cannot be read'),
        (['--card', os.devnull], '--card /dev/null is empty; write what the policy is'),
    ],
)
def test_bad_words_of_a_checkpoint_of_ones_own(own, tmp_path, capsys, words, match):
    out = tmp_path / 'b'
    assert main(['export', '--checkpoint', str(own), '--out', str(out), *words]) == 1
    assert match in capsys.readouterr().err
    assert not out.exists()


def test_a_weight_beyond_float16(own, tmp_path, capsys):
    held = load_file(own / 'model.safetensors')
    held['action_in_proj.bias'][0] = 1e5
    save_file(held, own / 'model.safetensors')
    words = ['export', '--checkpoint', str(own), '--store', 'fp16', '--out', str(tmp_path / 'b')]
    assert main(words) == 1
    assert 'action_in_proj.bias: 1 of' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['own']


@pytest.mark.parametrize(
    ('words', 'match'),
    [
        (['--robot', 'franka'], "state: mean has 4 entries, robot 'franka' has 8; these are"),
        (['--views', 'base,head'], "view 'head' is no camera of 'metaworld': base, wrist"),
        (['--horizon', '50'], '--horizon 50, but the checkpoint was trained with 10'),
        (['--precision', 'fp7'], "--precision 'fp7' is none of"),
        (['--precision', 'fp8'], '--precision fp8 needs frames of the robot: give --calibrate'),
        (['--precision', 'fp8', '--calibrate', 'no'], '--calibrate no does not exist; name'),
        (['--buckets', '32,x'], "--buckets '32,x': write numbers"),
        (['--tokenizer', __file__], 'is no SentencePiece vocabulary'),
        (['--stats', 'nowhere.json'], 'nowhere.json cannot be read as statistics'),
    ],
)
def test_bad_words_write_nothing(openpi, tmp_path, capsys, words, match):
    assert export(openpi, tmp_path / 'b', *words) == 1
    assert match in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['openpi']


def test_a_checkpoint_needs_a_vocabulary(openpi, tmp_path, capsys):
    words = ['export', '--checkpoint', str(openpi), '--out', str(tmp_path / 'b'), *SMALL]
    assert main(words) == 1
    assert "give PaliGemma's SentencePiece file with --tokenizer" in capsys.readouterr().err


def test_nan_is_found_before_anything_is_written(openpi, tmp_path, capsys):
    held = load_file(openpi / 'model.safetensors')
    held['time_mlp_in.bias'][0] = float('nan')
    save_file(held, openpi / 'model.safetensors')
    assert export(openpi, tmp_path / 'b') == 1
    assert f'time_mlp_in.bias: 1 of {NANO.expert.width}' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['openpi']


def test_a_checkpoint_of_another_size(openpi, tmp_path, capsys):
    assert export(openpi, tmp_path / 'b', '--size', 'pi05') == 1
    told = capsys.readouterr().err
    assert 'does not fit a Pi0.5 network of this size' in told
    assert told.count('missing: ') > 400


@pytest.fixture
def old(tmp_path):
    """A bundle that was there before."""
    out = shutil.copytree(share_dir() / 'bundles' / 'nano', tmp_path / 'b')
    return out, open_bundle(out).sha256


def test_a_full_disk_leaves_the_old_bundle(old, openpi, tmp_path, capsys, monkeypatch):
    out, before = old
    real, calls = WeightFile._append, []

    def append(self, data):
        calls.append(data)
        if len(calls) == 20:
            raise OSError(28, 'No space left on device')
        return real(self, data)

    monkeypatch.setattr(WeightFile, '_append', append)
    assert export(openpi, out) == 1
    assert 'no space left on the disk; nothing was changed. Free about' in capsys.readouterr().err
    assert open_bundle(out).sha256 == before
    assert sorted(os.listdir(tmp_path)) == ['b', 'openpi']


def test_a_disk_that_is_too_small_is_told_beforehand(old, openpi, capsys, monkeypatch):
    out, before = old
    usage = type('Usage', (), {'free': 1_000_000})
    monkeypatch.setattr('vla_trt_ros.export.pi05.job.shutil.disk_usage', lambda path: usage)
    assert export(openpi, out) == 1
    assert 'needs 0.0 GB beside what is there, 0.0 GB are free' in capsys.readouterr().err
    assert open_bundle(out).sha256 == before


def test_an_interrupted_export_leaves_the_old_bundle(old, openpi, tmp_path, monkeypatch):
    out, before = old

    def interrupted(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(WeightFile, '_append', interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(openpi, out)
    assert open_bundle(out).sha256 == before
    assert sorted(os.listdir(tmp_path)) == ['b', 'openpi']
