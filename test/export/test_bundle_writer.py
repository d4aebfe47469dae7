import os

import pytest

from vla_trt_ros.bundle import ActionColumn, EngineEntry, Layout, SourceEntry, open_bundle
from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.bundle_writer import BundleWriter, extend_bundle
from vla_trt_ros.export.robots import default_layout, plausible_stats
from vla_trt_ros.policies.pi05.spec import NANO

LAYOUT = Layout('metaworld', 0.05, ('hand_x',), (ActionColumn('hand_x', 'delta'),))


def commit(writer, card='a card'):
    for name in ('norm_stats.json', 'tokenizer.model', 'README.md'):
        (writer.folder / name).write_text(card)
    writer.commit(
        name='b',
        family='pi05',
        config=NANO,
        layout=LAYOUT,
        normalization='quantiles',
        norm_stats='norm_stats.json',
        tokenizer='tokenizer.model',
        model_card='README.md',
        engines=[],
        created_by='a test',
        notes={'seed': '0'},
    )


def card(path):
    return (open_bundle(path).path / 'README.md').read_text()


def test_nothing_is_there_before_commit(tmp_path):
    out = tmp_path / 'deep' / 'b'
    with BundleWriter(out) as writer:
        assert not out.exists()
        commit(writer)
    assert card(out) == 'a card'
    assert os.listdir(out.parent) == ['b']
    assert out.stat().st_mode & 0o755 == 0o755


def test_replaces_a_bundle_whole(tmp_path):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        (writer.folder / 'only in the old one').write_text('x')
        commit(writer)
    with BundleWriter(out) as writer:
        assert card(out) == 'a card'
        commit(writer, 'a better card')
    assert card(out) == 'a better card'
    assert not (out / 'only in the old one').exists()
    assert os.listdir(tmp_path) == ['b']


def test_interrupted_export_leaves_the_old_bundle(tmp_path):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        commit(writer)

    def interrupted():
        with BundleWriter(out) as writer:
            (writer.folder / 'vision.onnx').write_text('half of it')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert card(out) == 'a card'
    assert os.listdir(tmp_path) == ['b']


def test_failed_move_puts_the_old_bundle_back(tmp_path, monkeypatch):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        commit(writer)
    real, calls = os.rename, []

    def rename(a, b):
        calls.append(a)
        if len(calls) == 2:
            raise OSError(28, 'No space left on device')
        real(a, b)

    monkeypatch.setattr(os, 'rename', rename)
    with pytest.raises(OSError, match='No space left'), BundleWriter(out) as writer:
        commit(writer, 'a better card')
    assert card(out) == 'a card'
    assert os.listdir(tmp_path) == ['b']


def test_does_not_replace_what_is_no_bundle(tmp_path):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'chapter.tex').write_text('years of work')
    with pytest.raises(BundleError, match=r'thesis exists and is no bundle; name another'):
        BundleWriter(tmp_path / 'thesis')
    assert os.listdir(tmp_path) == ['thesis']


def test_layout_of_a_robot():
    layout = default_layout(load_robot('metaworld'))
    assert layout.step_dt == 0.05
    assert layout.state == ('hand_x', 'hand_y', 'hand_z', 'gripper')
    assert [a.kind for a in layout.actions] == ['delta', 'delta', 'delta', 'absolute']


def test_statistics_lie_inside_the_limits():
    robot = load_robot('metaworld')
    stats = plausible_stats(robot)
    for i, joint in enumerate(robot.joints):
        assert joint.lower <= stats['state'].q01[i] < stats['state'].q99[i] <= joint.upper
    assert stats['actions'].q99.tolist() == [0.0625, 0.0625, 0.0625, 1.0]
    assert stats['actions'].q01.tolist() == [-0.0625, -0.0625, -0.0625, 0.0]
    assert (stats['state'].std > 0).all()


def onnx_source(file='vision.onnx', precision='fp32', weights=('vision.weights',)):
    tensors = (TensorSpec('a', (1,), 'float32'),)
    return SourceEntry('vision', precision, file, tensors, tensors, weights=weights)


def with_files(out, *names):
    for name in names:
        (out / name).write_text(f'contents of {name}')


def test_sources_are_entered_into_a_bundle(tmp_path):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        commit(writer)
    before = open_bundle(out)
    assert before.manifest.sources == ()
    with_files(out, 'vision.onnx', 'vision.weights')
    extend_bundle(out, sources=[onnx_source()])
    bundle = open_bundle(out)
    assert bundle.sources('vision', 'fp32') == (onnx_source(),)
    assert bundle.manifest.files['vision.weights'].bytes == len('contents of vision.weights')
    assert bundle.sha256 != before.sha256
    with pytest.raises(BundleError, match='no fp8 ONNX of vision, only fp32; export it again'):
        bundle.sources('vision', 'fp8')


def test_an_entry_replaces_the_one_before(tmp_path):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        commit(writer)
    with_files(out, 'vision.onnx', 'vision.weights', 'better.onnx')
    extend_bundle(out, sources=[onnx_source()])
    extend_bundle(out, sources=[onnx_source('better.onnx', weights=())])
    assert [s.file for s in open_bundle(out).manifest.sources] == ['better.onnx']


def test_an_entry_without_its_file_is_refused(tmp_path):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        commit(writer)
    with_files(out, 'vision.onnx')
    with pytest.raises(BundleError, match='vision.weights is not there; write it before'):
        extend_bundle(out, sources=[onnx_source()])
    assert card(out) == 'a card'
    assert open_bundle(out).manifest.sources == ()


def test_a_full_disk_while_entering_leaves_the_manifest(tmp_path, monkeypatch):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        commit(writer)
    with_files(out, 'vision.onnx', 'vision.weights')

    def full(a, b):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left'):
        extend_bundle(out, sources=[onnx_source()])
    assert open_bundle(out).manifest.sources == ()
    assert not [p for p in os.listdir(out) if p.startswith('.')]


def test_engines_of_two_gpus_fit_in_one_bundle(tmp_path):
    out = tmp_path / 'b'
    with BundleWriter(out) as writer:
        commit(writer)
    with_files(out, 'a.plan', 'b.plan')
    tensors = (TensorSpec('a', (1,), 'float32'),)
    extend_bundle(
        out,
        engines=[
            EngineEntry('vision', 'tensorrt', 'fp8', file, tensors, tensors, target=target)
            for file, target in (('a.plan', 'sm_89'), ('b.plan', 'sm_120'))
        ],
    )
    assert [e.target for e in open_bundle(out).manifest.engines] == ['sm_89', 'sm_120']
