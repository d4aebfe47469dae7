"""A robot whose commands are no joints: inputs of a controller, with a state of readings."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakePolicy, joints, rgb_frame

from vla_trt_ros.actions.admission import Admission, Refusal
from vla_trt_ros.actions.layout import JointLayout
from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import load_platform, load_policy, load_robot
from vla_trt_ros.datatypes import NS, ActionSpace, PolicyResult, StageTimes
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.export.robots import default_layout, plausible_stats
from vla_trt_ros.pipeline import Pipeline

ROBOT = load_robot('libero')
INPUTS = ('delta_x', 'delta_y', 'delta_z', 'turn_x', 'turn_y', 'turn_z', 'gripper')
READINGS = {
    'eef_x': -0.2, 'eef_y': 0.01, 'eef_z': 1.17,
    'eef_axis_angle_x': 3.14, 'eef_axis_angle_y': 0.1, 'eef_axis_angle_z': -0.1,
    'finger_1': 0.039, 'finger_2': -0.038,
}  # fmt: skip


class LiberoPolicy(FakePolicy):
    """Row k asks for (0.5 + k) everywhere, more than the controller takes from row 1 on."""

    def __init__(self):
        super().__init__()
        columns = tuple(SimpleNamespace(joint=n, kind='absolute') for n in INPUTS)
        self.bundle.layout = SimpleNamespace(
            robot='libero', step_dt=0.05, state=tuple(READINGS), actions=columns
        )

    def infer(self, observation, *, num_steps, noise=None):
        self.asked.append((observation, num_steps))
        rows = np.repeat(0.5 + np.arange(self.horizon, dtype=np.float32)[:, None], 7, axis=1)
        return PolicyResult(rows, StageTimes(), 9)


def tick():
    policy = LiberoPolicy()
    pipeline = Pipeline(policy, ROBOT, load_platform('cpu'), load_policy('pi05_libero'))
    pipeline.set_prompt('open the drawer')
    for view in ('base', 'wrist'):
        pipeline.offer_image(view, rgb_frame(NS))
    # Names decide, not the order in which they come.
    pipeline.offer_joints(joints(NS, panda_joint1=9.0, **dict(reversed(READINGS.items()))))
    assert pipeline.readiness(NS).ok
    return policy, pipeline.tick(NS).chunk


def test_inputs_and_state_are_openpis():
    assert ROBOT.joint_names == INPUTS
    assert ROBOT.state_names == tuple(READINGS)
    assert ROBOT.control_rate == 20.0


def test_a_chunk_holds_inputs_within_the_controllers_range():
    policy, chunk = tick()
    assert policy.asked[0][0].state == pytest.approx(list(READINGS.values()))
    assert chunk.names == INPUTS
    assert chunk.actions[0].tolist() == [0.5] * 7, 'nothing is added: inputs are no positions'
    assert chunk.actions[1:].tolist() == [[1.0] * 7] * 9
    assert chunk.clamped == 63


def test_the_command_gate_refuses_such_a_chunk():
    _, chunk = tick()
    assert chunk.action_space is ActionSpace.RAW
    refusal = Admission(ROBOT, dry_run=False).check(chunk, NS)
    assert isinstance(refusal, Refusal)
    assert 'action space is RAW, the gate takes JOINT_POSITION' in refusal.text


def test_an_input_is_no_state_and_a_reading_no_action():
    kinds = ('absolute',) * 7
    with pytest.raises(ConfigError, match="state 'delta_x' is no joint of robot libero"):
        JointLayout(ROBOT, ('delta_x',), INPUTS, kinds)
    with pytest.raises(ConfigError, match="action 'eef_x' is no joint of robot libero"):
        JointLayout(ROBOT, tuple(READINGS), ('eef_x', *INPUTS[1:]), kinds)
    with pytest.raises(ConfigError, match="'delta_x' is a delta, but 'delta_x' is not in the st"):
        JointLayout(ROBOT, tuple(READINGS), INPUTS, ('delta', *kinds[1:]))


def test_raw_inputs_need_readings_and_names_are_given_once():
    with pytest.raises(ConfigError, match='list the readings of the state'):
        replace(ROBOT, readings=())
    twice = replace(ROBOT.readings[0], name='delta_x')
    with pytest.raises(ConfigError, match="joint 'delta_x' is listed twice"):
        replace(ROBOT, readings=(twice,))
    with pytest.raises(ConfigError, match=r'lower 0.5 is not below upper 0.3'):
        replace(ROBOT.readings[0], lower=0.5)


def test_the_exporter_takes_readings_as_state_and_inputs_as_they_are():
    layout = default_layout(ROBOT)
    assert layout.state == tuple(READINGS)
    assert [(c.joint, c.kind) for c in layout.actions] == [(n, 'absolute') for n in INPUTS]
    stats = plausible_stats(ROBOT)
    assert stats['state'].q01 == pytest.approx([r.lower for r in ROBOT.readings])
    assert stats['actions'].q99 == pytest.approx([1.0] * 7)
    assert stats['actions'].q01 == pytest.approx([-1.0] * 7)


def test_a_bundle_that_takes_inputs_for_state_is_refused():
    layout = default_layout(ROBOT)
    wrong = SimpleNamespace(
        name='old', layout=replace(layout, state=INPUTS), views=('base',), manifest=None
    )
    with pytest.raises(BundleError, match="reading 'delta_x' is none of eef_x, eef_y"):
        Bundle.check_robot(wrong, ROBOT)
