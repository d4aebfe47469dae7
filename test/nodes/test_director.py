"""Tasks switched on the real simulator and command node, with a stand-in for the policy node."""

import time
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
if find_spec('metaworld') is None:  # not imported here: MuJoCo would choose its OpenGL
    pytest.skip("needs the simulator: pip install '.[sim]'", allow_module_level=True)

from ros_system import Client, running
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vla_trt_ros.cli.demo_stage import Stage
from vla_trt_ros.cli.demo_turns import turns
from vla_trt_ros.datatypes import ActionChunk, State, prompt_hash
from vla_trt_ros.errors import VlaError
from vla_trt_ros.messages import stamp_ns
from vla_trt_ros.msg import ActionChunk as ChunkMsg
from vla_trt_ros.msg import PolicyTiming
from vla_trt_ros.nodes.director import Director
from vla_trt_ros.nodes.monitor import Monitor
from vla_trt_ros.nodes.publish import (
    COMMAND_QOS,
    LATCHED_QOS,
    STATE_QOS,
    TELEMETRY_QOS,
    chunk_to_msg,
)
from vla_trt_ros.srv import SetPrompt

pytestmark = pytest.mark.ros

SEED = 900_000
NAMES = ('hand_x', 'hand_y', 'hand_z', 'gripper')
SWAY = 0.01  # metres: the hand sways about a held target, by 6 mm after a reset
STALE = 1.5  # seconds for which the stand-in goes on with the old prompt


class Nobody:
    def ended(self):
        return None


class Aim:
    """A policy node that sends the hand to ``goal`` whatever it is told, and learns of a new
    prompt ``stale`` seconds late.
    """

    def __init__(self, client):
        self.goal = np.array([0.2, 0.8, 0.3])
        self.gripper = 1.0
        self.opening: list[float] = []
        self.stale = 0.0
        self.hand: list[tuple[int, np.ndarray]] = []
        self._hash = self._next_hash = 0
        self._due = 0.0
        self._id = 0
        self.told_ns = 0
        node = self._node = client.node
        self._chunks = node.create_publisher(ChunkMsg, 'action_chunk', COMMAND_QOS)
        self._timing = node.create_publisher(PolicyTiming, 'policy/timing', TELEMETRY_QOS)
        node.create_subscription(JointState, 'joint_states', self._on_joints, STATE_QOS)
        node.create_service(SetPrompt, 'policy/set_prompt', self._on_prompt)

    def _on_prompt(self, request, response):
        response.accepted = bool(request.prompt)
        response.message = '' if request.prompt else 'the prompt is empty'
        response.prompt_hash = self._next_hash = prompt_hash(request.prompt)
        self._due = time.monotonic() + self.stale
        self.told_ns = self._node.get_clock().now().nanoseconds
        return response

    def _on_joints(self, msg):
        at = np.array(msg.position[:3])
        stamp = stamp_ns(msg.header.stamp)
        self.hand.append((stamp, at))
        self.opening.append(msg.position[3])
        if time.monotonic() >= self._due:
            self._hash = self._next_hash
        step = np.clip(self.goal - at, -0.012, 0.012)
        rows = np.ones((10, 4), np.float32)
        rows[:, 3] = self.gripper
        rows[:, :3] = at + step * np.arange(1, 11)[:, None]
        self._id += 1
        self._chunks.publish(_chunk(stamp, rows, self._id, self._hash))
        self._timing.publish(PolicyTiming(num_steps=3))


def _chunk(stamp, rows, chunk_id, words):
    kind = {'chunk_id': chunk_id, 'prompt_hash': words, 'run_id': b'r' * 16}
    return chunk_to_msg(ActionChunk(stamp, stamp, 50_000_000, NAMES, rows, **kind))


@pytest.fixture(scope='module')
def system():
    sim = running('sim_node', image_width=64, image_height=64, seed=5)
    with sim, running('command_node', dry_run=False), Client() as client, Monitor() as monitor:
        policy = Aim(client)
        prompts = client.hear(String, 'sim/task_prompt', LATCHED_QOS)
        client.until(lambda: policy.hand and prompts and monitor.status, 40, 'the nodes')
        yield client, monitor, policy, prompts


def goal_of(task, seed):
    from vla_trt_ros.sim.metaworld import MetaWorld

    env = MetaWorld(task)
    env.reset(seed)
    goal = env.full_observation[-3:].copy()
    env.close()
    return goal


@pytest.mark.slow
def test_turns_are_solved_and_counted_where_the_policy_does_what_it_is_told(system):
    _, monitor, policy, _ = system
    stage = Stage(monitor, Nobody(), linger=0.0)
    monitor.set_num_steps = lambda n: None
    director = Director(monitor, stage.look)
    reach, again = turns(['reach'], seed=SEED, steps=[3], limit=12.0, episodes=2)
    (other,) = turns(['pick-place'], seed=SEED, steps=[3], limit=2.0)

    policy.goal = goal_of('reach', SEED)
    # Reach and pick-place look the same on one seed: what was asked decides what is success.
    assert goal_of('pick-place', SEED) == pytest.approx(policy.goal)
    assert stage.play(director, reach).success
    assert monitor.success
    policy.gripper = 0.0
    assert not stage.play(director, other).success
    assert policy.opening[-1] < 0.1
    policy.gripper, policy.goal = 1.0, goal_of('reach', SEED + 1)
    policy.opening.clear()
    assert stage.play(director, again).success
    # Open from the reset on: what the gripper did for the task before is over.
    first_open = next(k for k, opening in enumerate(policy.opening) if opening > 0.9)
    assert first_open < 10
    assert min(policy.opening[first_open:]) > 0.9
    assert [one.success for one in stage.played] == [True, False, True]
    assert all(1.0 < one.seconds < 12.0 for one in stage.played)
    assert stage.played[1].seconds == pytest.approx(2.0, abs=0.3)
    assert all(one.chunks > 15 * one.seconds for one in stage.played)


def test_nothing_moves_between_the_scene_and_the_first_chunk_of_its_prompt(system):
    client, monitor, policy, prompts = system
    director = Director(monitor)
    director.begin('reach', SEED, 'reach the goal')
    client.until(lambda: monitor.status['command'].state == State.RUNNING, 5)
    policy.hand.clear()
    policy.goal = np.array([-0.3, 0.9, 0.4])
    client.until(lambda: policy.hand, 5)
    client.until(lambda: np.abs(policy.hand[-1][1] - policy.hand[0][1]).max() > 0.1, 8, 'motion')
    moving = policy.hand[-1][1]
    policy.stale = STALE
    prompts.clear()
    states = []
    switching = Director(monitor, lambda: states.append(monitor.status['command'].state))
    begin = time.monotonic()
    switching.begin('drawer-open', SEED, 'open the drawer')
    let_go = client.node.get_clock().now().nanoseconds
    assert time.monotonic() - begin > STALE
    assert prompts[-1].data == 'open the drawer'
    policy.stale = 0.0
    still = [at for stamp, at in policy.hand if policy.told_ns < stamp < let_go]
    assert len(still) > 5
    home = still[0]
    assert np.abs(home - moving).max() > 0.05
    assert np.abs(np.array(still) - home).max() < SWAY
    assert State.RUNNING not in states[len(states) // 2 :]
    client.until(lambda: np.abs(policy.hand[-1][1] - home).max() > 0.02, 5, 'the arm to move')
    director.hold()
    client.until(lambda: monitor.status['command'].state == State.INACTIVE, 5)
    time.sleep(0.5)
    at = policy.hand[-1][1]
    time.sleep(0.5)
    assert np.abs(policy.hand[-1][1] - at).max() < SWAY


def test_what_a_node_refuses_is_said_in_its_words(system):
    _, monitor, _, _ = system
    director = Director(monitor)
    with pytest.raises(VlaError, match="did you mean 'reach'"):
        director.begin('reech', SEED, 'reach the goal')
    with pytest.raises(VlaError, match='seed -1'):
        director.begin('reach', -1, 'reach the goal')
    with pytest.raises(VlaError, match='the prompt is empty'):
        director.begin('reach', SEED, '')


def test_what_it_is_told_to_watch_ends_its_waiting(system):
    _, monitor, _, _ = system

    def dead():
        raise VlaError('the policy ended')

    with pytest.raises(VlaError, match='the policy ended'):
        Director(monitor, dead).begin('reach', SEED, 'reach the goal')
