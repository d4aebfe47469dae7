import os

import pytest

from vla_trt_ros.bundle import ActionColumn, Layout, open_bundle
from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.bundle_writer import BundleWriter
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
    return open_bundle(path).file('README.md').read_text()


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
