"""The tip of an arm from its URDF, against an arm that is worked out by hand."""

import numpy as np
import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.replay.kinematics import Chain

URDF = """<?xml version="1.0"?>
<robot name="two">
  <link name="base"/><link name="upper"/><link name="lower"/><link name="slide"/><link name="tip"/>
  <link name="aside"/><link name="ball"/>
  <joint name="shoulder" type="revolute"><origin xyz="0 0 0.5"/><axis xyz="0 0 1"/>
    <parent link="base"/><child link="upper"/></joint>
  <joint name="elbow" type="continuous"><origin xyz="1 0 0"/><axis xyz="0 0 2"/>
    <parent link="upper"/><child link="lower"/></joint>
  <joint name="lift" type="prismatic"><origin xyz="0.5 0 0" rpy="0 1.5707963267948966 0"/>
    <axis xyz="1 0 0"/><parent link="lower"/><child link="slide"/></joint>
  <joint name="mount" type="fixed"><origin xyz="0 0 0.1"/>
    <parent link="slide"/><child link="tip"/></joint>
  <joint name="free" type="floating"><parent link="tip"/><child link="ball"/></joint>
</robot>
"""


@pytest.fixture
def urdf(tmp_path):
    path = tmp_path / 'two.urdf'
    path.write_text(URDF)
    return path


def test_a_plane_arm_with_a_slide(urdf):
    chain = Chain(urdf, 'tip', ('elbow', 'gripper', 'shoulder', 'lift'))
    rng = np.random.default_rng(0)
    joints = rng.uniform(-2.0, 2.0, (20, 4))
    elbow, _, shoulder, lift = joints.T
    # Turned by 90 degrees about y, the slide's x points down and its z along the arm.
    x = np.cos(shoulder) + 0.6 * np.cos(shoulder + elbow)
    y = np.sin(shoulder) + 0.6 * np.sin(shoulder + elbow)
    expected = np.stack([x, y, 0.5 - lift], axis=1)
    np.testing.assert_allclose(chain.positions(joints), expected, atol=1e-12)


def test_joints_that_are_not_commanded_stay_at_zero_and_nan_stays(urdf):
    chain = Chain(urdf, 'tip', ('shoulder',))
    found = chain.positions(np.array([[np.pi / 2], [np.nan]]))
    np.testing.assert_allclose(found[0], [0.0, 1.6, 0.5], atol=1e-12)
    assert np.isnan(found[1, 0])


def test_roll_pitch_and_yaw_are_about_fixed_axes(tmp_path):
    (tmp_path / 'a.urdf').write_text(
        '<robot><link name="a"/><link name="b"/><link name="c"/>'
        '<joint name="j" type="revolute"><parent link="a"/><child link="b"/></joint>'
        '<joint name="k" type="fixed"><origin xyz="0 0 0" rpy="0.3 0.5 0.7"/>'
        '<parent link="b"/><child link="m"/></joint>'
        '<joint name="l" type="fixed"><origin xyz="0 0 1"/><parent link="m"/><child link="c"/>'
        '</joint></robot>'
    )
    found = Chain(tmp_path / 'a.urdf', 'c', ('j',)).positions(np.zeros((1, 1)))[0]
    # Rz(yaw) Ry(pitch) Rx(roll) applied to z.
    r, p, y = 0.3, 0.5, 0.7
    expected = [
        np.cos(y) * np.sin(p) * np.cos(r) + np.sin(y) * np.sin(r),
        np.sin(y) * np.sin(p) * np.cos(r) - np.cos(y) * np.sin(r),
        np.cos(p) * np.cos(r),
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ('tip', 'names', 'message'),
    [
        ('hand', ('shoulder',), "has no link 'hand'; its links: base, upper"),
        ('tip', ('hand_x',), "no joint on the way to 'tip' is one of hand_x; on it are shoulder"),
        ('ball', ('shoulder',), "'free' is 'floating'"),
        ('base', ('shoulder',), 'on it are none'),
    ],
)
def test_what_cannot_be_followed(urdf, tip, names, message):
    with pytest.raises(ConfigError, match=message):
        Chain(urdf, tip, names)


def test_what_is_no_urdf(tmp_path):
    (tmp_path / 'a.urdf').write_text('<robot>')
    with pytest.raises(ConfigError, match='cannot be read as URDF'):
        Chain(tmp_path / 'a.urdf', 'tip', ('a',))
    with pytest.raises(ConfigError, match='cannot be read as URDF'):
        Chain(tmp_path / 'b.urdf', 'tip', ('a',))
    (tmp_path / 'a.urdf').write_text(URDF.replace('xyz="1 0 0"/><axis', 'xyz="1 0"/><axis'))
    with pytest.raises(ConfigError, match="'1 0' are not three numbers"):
        Chain(tmp_path / 'a.urdf', 'tip', ('shoulder',))
