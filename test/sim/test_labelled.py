"""Boxes of the simulator's objects, held against the pictures themselves."""

import numpy as np
import pytest

from vla_trt_ros.errors import BackendError
from vla_trt_ros.sim.gl import choose_gl

try:
    choose_gl()
except BackendError as error:
    pytest.skip(str(error), allow_module_level=True)

from vla_trt_ros.sim.labelled import LABELS, MIN_PIXELS, LabelledCameras
from vla_trt_ros.sim.metaworld import MetaWorld
from vla_trt_ros.sim.views import WRIST_VIEW, base_view


def looks(task, seed=3, size=(224, 224), steps=0):
    env = MetaWorld(task)
    env.reset(seed)
    views = {'near': base_view('near'), 'wrist': WRIST_VIEW}
    cameras = LabelledCameras(env, views, width=size[0], height=size[1])
    try:
        for _ in range(steps):
            env.apply(env.hold_target())
        return cameras.look()
    finally:
        cameras.close()
        env.close()


def named(truth):
    return {
        LABELS[label]: box.astype(int)
        for box, label in zip(truth.boxes, truth.labels, strict=True)
    }


def test_the_green_goal_fills_its_box_and_is_nowhere_else():
    truth = looks('reach')['near']
    red, green, blue = (truth.image[..., i].astype(int) for i in range(3))
    is_green = (green > 120) & (red < 40) & (blue < 40)
    rows, columns = np.nonzero(is_green)
    left, upper, right, lower = named(truth)['goal']
    assert abs(columns.min() - left) <= 1
    assert abs(columns.max() + 1 - right) <= 1
    assert abs(rows.min() - upper) <= 1
    assert abs(rows.max() + 1 - lower) <= 1


@pytest.mark.parametrize(
    ('task', 'labels'),
    [
        ('push', {'gripper', 'puck', 'goal'}),
        ('drawer-open', {'gripper', 'drawer', 'goal'}),
        ('door-open', {'gripper', 'door', 'door handle', 'goal'}),
        ('button-press-topdown', {'gripper', 'button', 'button box'}),
        ('window-open', {'gripper', 'window', 'goal'}),
        ('peg-insert-side', {'gripper', 'peg', 'peg block'}),
    ],
)
def test_each_task_shows_its_own_objects(task, labels):
    found = named(looks(task)['near'])
    assert set(found) <= labels
    assert set(found) >= labels - {'goal', 'peg block'}  # these may be hidden, or be cut off
    for left, upper, right, lower in found.values():
        assert 0 <= left < right <= 224
        assert 0 <= upper < lower <= 224


def test_a_handle_lies_on_its_door():
    found = named(looks('door-open')['near'])
    door, handle = found['door'], found['door handle']
    assert (handle[:2] >= door[:2]).all()
    assert (handle[2:] <= door[2:]).all()


def test_boxes_scale_with_the_picture():
    small, large = (named(looks('push', size=s)['near']) for s in ((120, 120), (240, 240)))
    assert set(small) == set(large)
    for name in small:
        assert small[name] * 2 == pytest.approx(large[name], abs=3)


def test_what_hardly_shows_is_no_object(monkeypatch):
    everything = set(named(looks('push')['near']))
    monkeypatch.setattr('vla_trt_ros.sim.labelled.MIN_PIXELS', MIN_PIXELS * 20)
    assert set(named(looks('push')['near'])) < everything


def test_looking_leaves_the_pictures_as_they_were():
    env = MetaWorld('push', width=96, height=96)
    env.reset(3)
    cameras = LabelledCameras(env, {'near': base_view('near')}, width=96, height=96)
    first = cameras.look()['near']
    second = cameras.look()['near']
    assert (first.image == second.image).all()
    assert len(np.unique(first.image.reshape(-1, 3), axis=0)) > 500  # shaded, not flat colours
    cameras.close()
    env.close()
