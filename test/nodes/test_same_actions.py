"""The same messages give the same actions over topics and in process, bit for bit."""

import array
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from ros_system import Client, running
from sensor_msgs.msg import JointState

from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import CameraFrame, ChunkFlag, prompt_hash
from vla_trt_ros.loading import load_pipeline
from vla_trt_ros.messages import chunk_from_msg, frame_from_image, joints_from_msg
from vla_trt_ros.msg import ActionChunk
from vla_trt_ros.nodes.publish import COMMAND_QOS, IMAGE_QOS, STATE_QOS, time_msg
from vla_trt_ros.nodes.publish_inputs import image_msg
from vla_trt_ros.srv import SetPrompt

pytestmark = pytest.mark.ros

ROUNDS = 8
PROMPTS = ('reach the goal', 'open the drawer')
STEPS = 3
MS = 1_000_000


class Sender:
    """Publishes an observation as cameras and encoders would, and keeps every message."""

    def __init__(self, client):
        self.client, self.robot = client, load_robot('metaworld')
        node = client.node
        self.joints = node.create_publisher(JointState, self.robot.joint_states_topic, STATE_QOS)
        self.images = {
            view: node.create_publisher(type(image_msg(_frame(_pixels(0), 1))), c.topic, IMAGE_QOS)
            for view, c in self.robot.cameras.items()
        }
        publishers = (self.joints, *self.images.values())
        client.until(lambda: all(p.get_subscription_count() for p in publishers), 20)
        # That is this side's view: until the node has found us too, what we send is lost to it.
        time.sleep(1.0)

    def send(self, k: int):
        """Joint states before and after the exposure, then a picture of each camera: so that the
        state must be interpolated, and the views' stamps differ.
        """
        stamp = self.client.node.get_clock().now().nanoseconds
        joints = [_joints(self.robot, k, stamp - 10 * MS), _joints(self.robot, k + 0.5, stamp)]
        images = {
            'base': image_msg(_frame(_pixels(2 * k), stamp - 4 * MS)),
            'wrist': image_msg(_frame(_pixels(2 * k + 1), stamp - 3 * MS)),
        }
        for msg in joints:
            self.joints.publish(msg)
        time.sleep(0.03)
        for view, msg in images.items():
            self.images[view].publish(msg)
        return joints, images


def _pixels(k):
    """A different picture for every k, with structure at more than one scale."""
    rng = np.random.default_rng(k)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((32, 32, 1), np.uint8)) ^ rng.integers(
        0, 16, (224, 288, 3), dtype=np.uint8
    )


def _frame(pixels, stamp_ns):
    h, w, _ = pixels.shape
    return CameraFrame(stamp_ns, stamp_ns, 'camera', 'rgb8', h, w, 3 * w, pixels.reshape(-1))


def _joints(robot, k, stamp_ns):
    share = 0.3 + 0.04 * k
    msg = JointState(name=[*reversed(robot.joint_names), 'another_joint'])
    msg.header.stamp = time_msg(round(stamp_ns))
    values = [j.lower + share * (j.upper - j.lower) for j in reversed(robot.joints)]
    msg.position = array.array('d', [*values, 0.5])
    return msg


def test_topics_and_process_agree_to_the_bit():
    parameters = {'num_steps': STEPS, 'prompt': PROMPTS[0]}
    sent, heard = [], []
    with running('policy_node', **parameters), Client() as client:
        chunks = client.hear(ActionChunk, 'action_chunk', COMMAND_QOS)
        sender = Sender(client)
        for k in range(ROUNDS):
            if k == ROUNDS // 2:
                request = SetPrompt.Request(prompt=PROMPTS[1])
                assert client.call(SetPrompt, 'policy/set_prompt', request).accepted
            chunks.clear()
            sent.append(sender.send(k))
            client.until(lambda: chunks, 10, f'chunk {k}')
            heard.append(chunk_from_msg(chunks[0]))
    assert [chunk.chunk_id for chunk in heard] == list(range(ROUNDS))

    pipeline = load_pipeline(robot='metaworld', platform='cpu', **parameters)
    try:
        pipeline.reset()
        for k, ((joints, images), over_topics) in enumerate(zip(sent, heard, strict=True)):
            if k == ROUNDS // 2:
                pipeline.set_prompt(PROMPTS[1])
            for msg in joints:
                pipeline.offer_joints(joints_from_msg(msg, 0))
            for view, msg in images.items():
                pipeline.offer_image(view, frame_from_image(msg, 0))
            chunk = pipeline.tick(over_topics.observation_ns + 5 * MS).chunk
            assert chunk.observation_ns == over_topics.observation_ns
            assert chunk.names == over_topics.names
            assert chunk.prompt_hash == over_topics.prompt_hash == prompt_hash(PROMPTS[k >= 4])
            assert bool(chunk.flags & ChunkFlag.FIRST) == (k in (0, 4))
            assert chunk.actions.dtype == over_topics.actions.dtype == np.float32
            assert chunk.actions.tobytes() == over_topics.actions.tobytes(), k
    finally:
        pipeline.policy.close()
    # What would be no test: one chunk for all observations.
    assert len({chunk.actions.tobytes() for chunk in heard}) == ROUNDS
