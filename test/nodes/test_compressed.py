"""A robot whose cameras send JPEG: CompressedImage in, chunks out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from ros_system import Client, running
from sensor_msgs.msg import CompressedImage, JointState

from vla_trt_ros.config import load_robot, share_dir
from vla_trt_ros.datatypes import Reason
from vla_trt_ros.msg import ActionChunk, PolicyStatus
from vla_trt_ros.nodes.publish import COMMAND_QOS, IMAGE_QOS, LATCHED_QOS, STATE_QOS

pytestmark = pytest.mark.ros


def test_jpeg_cameras_make_chunks_and_a_broken_jpeg_says_so(tmp_path):
    text = Path(share_dir() / 'config/robots/metaworld.yaml').read_text(encoding='utf-8')
    robot = tmp_path / 'metaworld.yaml'
    robot.write_text(text.replace('image_raw,', 'compressed, compressed: true,'), encoding='utf-8')
    joints = load_robot(str(robot)).joints
    pixels = np.tile(np.arange(160, dtype=np.uint8), (120, 1))
    jpeg = cv2.imencode('.jpg', np.dstack([pixels, pixels[:, ::-1], pixels]))[1].tobytes()
    with running('policy_node', robot=robot, num_steps=1), Client() as client:
        chunks = client.hear(ActionChunk, 'action_chunk', COMMAND_QOS)
        status = client.hear(PolicyStatus, 'policy/status', LATCHED_QOS)
        views = ('base', 'wrist')
        cameras = [
            client.node.create_publisher(CompressedImage, f'{v}/compressed', IMAGE_QOS)
            for v in views
        ]
        states = client.node.create_publisher(JointState, 'joint_states', STATE_QOS)
        payload = {'data': jpeg}

        def publish() -> None:
            stamp = client.node.get_clock().now().to_msg()
            state = JointState(name=[j.name for j in joints])
            state.position = [(j.lower + j.upper) / 2 for j in joints]
            state.header.stamp = stamp
            states.publish(state)
            for camera in cameras:
                image = CompressedImage(format='bgr8; jpeg compressed bgr8', **payload)
                image.header.stamp = stamp
                camera.publish(image)

        timer = client.node.create_timer(1 / 30, publish)
        client.until(lambda: chunks, 30, 'a chunk from JPEG')
        payload['data'] = jpeg[: len(jpeg) // 3]
        client.until(lambda: status[-1].reason == Reason.BAD_IMAGE, what='BAD_IMAGE')
        assert 'does not decode' in status[-1].text
        payload['data'] = jpeg
        client.next(chunks)
        client.node.destroy_timer(timer)
