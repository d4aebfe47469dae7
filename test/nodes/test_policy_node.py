"""The policy node as a process, fed by cameras in another process, over DDS."""

import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from lifecycle_msgs.srv import ChangeState, GetState
from ros_system import Client, running
from std_msgs.msg import String

from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import Reason, State, prompt_hash
from vla_trt_ros.messages import chunk_from_msg
from vla_trt_ros.msg import ActionChunk, PolicyInfo, PolicyStatus, PolicyTiming
from vla_trt_ros.nodes.publish import COMMAND_QOS, EVENT_QOS, LATCHED_QOS, TELEMETRY_QOS
from vla_trt_ros.srv import SetPrompt

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def cameras():
    with running('pattern_node', width=160, height=120):
        yield


@pytest.fixture(scope='module')
def client(cameras):
    with running('policy_node', num_steps=1, prompt='reach the goal'), Client() as made:
        made.chunks = made.hear(ActionChunk, 'action_chunk', COMMAND_QOS)
        made.timing = made.hear(PolicyTiming, 'policy/timing', TELEMETRY_QOS)
        made.info = made.hear(PolicyInfo, 'policy/info', LATCHED_QOS)
        made.status = made.hear(PolicyStatus, 'policy/status', LATCHED_QOS)
        made.until(lambda: made.chunks, 30, 'the first chunk')
        yield made


def status_is(client, state: State, reason: Reason) -> bool:
    newest = client.status[-1] if client.status else None
    return newest is not None and (newest.state, newest.reason) == (state, reason)


def test_chunks_cross_processes_whole(client):
    chunk = chunk_from_msg(client.next(client.chunks))
    robot = load_robot('metaworld')
    assert chunk.names == robot.joint_names
    assert chunk.actions.shape == (10, 4)
    assert chunk.step_ns == 50_000_000
    lower = [j.lower for j in robot.joints]
    upper = [j.upper for j in robot.joints]
    assert (chunk.actions >= np.float32(lower)).all()
    assert (chunk.actions <= np.float32(upper)).all()
    # Deltas are from the pattern node's pose, the middle of each range: it moves, but not far.
    middle = (np.array(lower) + upper) / 2
    assert 1e-4 < np.abs(chunk.actions[:, :3] - middle[:3]).max() < 0.2
    age = client.node.get_clock().now().nanoseconds - chunk.observation_ns
    assert 0 < age < 2_000_000_000


def test_info_is_latched_and_ties_to_the_chunk(client):
    client.until(lambda: client.info, what='the latched info')
    info = client.info[-1]
    assert (info.bundle, info.robot, info.platform) == ('nano', 'metaworld', 'cpu')
    assert list(info.num_steps_available) == [1, 2, 3, 5, 10]
    assert info.cameras == ['base', 'wrist']
    assert info.backends == ['onnxruntime'] * 3
    assert client.next(client.chunks).policy_hash == info.bundle_sha256


def test_timing_adds_up(client):
    timing = client.next(client.timing)
    assert timing.camera_names == ['base', 'wrist']
    stages = timing.vision_ms + timing.prefix_ms + timing.denoise_ms
    assert timing.engine_ms == pytest.approx(stages, abs=1e-3)
    assert timing.vision_ms > 0
    assert timing.inference_ms > timing.engine_ms + timing.preprocess_ms
    assert timing.end_to_end_ms > timing.inference_ms
    assert min(timing.image_age_ms) > 0
    assert min(timing.frames_received) > 0
    assert timing.uploads == 0


def test_num_steps_changes_live(client):
    for steps in (3, 10, 1):
        assert client.set_parameter('policy', 'num_steps', steps).successful
        client.until(lambda s=steps: client.chunks[-1].num_steps == s, what=f'{steps} steps')
    refused = client.set_parameter('policy', 'num_steps', 4)
    assert not refused.successful
    assert 'num_steps 4 is not in this bundle' in refused.reason
    assert client.next(client.chunks).num_steps == 1


def by_parameter(client, prompt):
    client.set_parameter('policy', 'prompt', prompt)


def by_topic(client, prompt):
    publisher = client.node.create_publisher(String, 'policy/prompt', EVENT_QOS)
    client.until(publisher.get_subscription_count, what='the prompt subscription')
    publisher.publish(String(data=prompt))
    # Kept alive until it was heard.
    client.prompt_publisher = publisher


def by_service(client, prompt):
    client.call(SetPrompt, 'policy/set_prompt', SetPrompt.Request(prompt=prompt))


@pytest.mark.parametrize('way', [by_parameter, by_topic, by_service])
@pytest.mark.parametrize('words', ['open the drawer', 'ouvre le tiroir à droite, 请'])
def test_three_ways_to_a_prompt(client, way, words):
    prompt = f'{words} {way.__name__[3:]}'
    way(client, prompt)
    client.until(lambda: client.chunks[-1].prompt_hash == prompt_hash(prompt), what=prompt)
    client.until(lambda: client.status[-1].prompt == prompt)


@pytest.mark.parametrize(
    ('prompt', 'message'), [('', 'empty'), (' \n ', 'empty'), ('far ' * 500, 'tokens')]
)
def test_bad_prompts_are_refused_and_change_nothing(client, prompt, message):
    by_service(client, 'reach the goal')
    answer = client.call(SetPrompt, 'policy/set_prompt', SetPrompt.Request(prompt=prompt))
    assert not answer.accepted
    assert message in answer.message
    by_topic(client, prompt)
    time.sleep(0.2)
    assert client.next(client.chunks).prompt_hash == prompt_hash('reach the goal')


FAULTS = {
    'silent': Reason.STALE_IMAGE,
    'freeze': Reason.STALE_IMAGE,
    'backward': Reason.STALE_IMAGE,
    'truncated': Reason.BAD_IMAGE,
    'zero_size': Reason.BAD_IMAGE,
    'unknown_encoding': Reason.BAD_IMAGE,
    'joint_nan': Reason.BAD_STATE,
    'joint_missing': Reason.BAD_STATE,
    'joint_silent': Reason.STALE_STATE,
}


@pytest.mark.parametrize('fault', FAULTS)
def test_fault_stops_the_chunks_says_why_and_ends(client, fault):
    client.set_parameter('pattern', 'fault', fault)
    try:
        reason = FAULTS[fault]
        client.until(
            lambda: status_is(client, State.HOLDING, reason), what=f'{reason.name} after {fault}'
        )
        assert client.silent(client.chunks, 0.3)
        assert client.status[-1].text
    finally:
        client.set_parameter('pattern', 'fault', 'none')
    client.until(lambda: status_is(client, State.RUNNING, Reason.NONE), what='running again')
    client.next(client.chunks)


def test_image_size_may_change_in_mid_run(client):
    client.set_parameter('pattern', 'fault', 'resize')
    try:
        time.sleep(0.3)
        client.next(client.chunks)
        assert status_is(client, State.RUNNING, Reason.NONE)
    finally:
        client.set_parameter('pattern', 'fault', 'none')


def change_state(client, transition: int) -> bool:
    request = ChangeState.Request()
    request.transition.id = transition
    return client.call(ChangeState, 'policy/change_state', request).success


def state_label(client) -> str:
    return client.call(GetState, 'policy/get_state', GetState.Request()).current_state.label


CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4


def test_lifecycle_through_its_service(client):
    assert state_label(client) == 'active'
    first_run = bytes(bytearray(client.next(client.chunks).run_id.uuid))
    assert change_state(client, DEACTIVATE)
    assert state_label(client) == 'inactive'
    assert client.silent(client.chunks, 0.5)
    assert client.status[-1].state == State.INACTIVE
    assert change_state(client, CLEANUP)
    assert state_label(client) == 'unconfigured'
    assert change_state(client, CONFIGURE)
    assert client.silent(client.chunks, 0.3)
    assert change_state(client, ACTIVATE)
    chunk = client.next(client.chunks)
    assert chunk.chunk_id < 10
    assert chunk.flags & ActionChunk.FIRST or chunk.chunk_id > 0
    assert bytes(bytearray(chunk.run_id.uuid)) != first_run
