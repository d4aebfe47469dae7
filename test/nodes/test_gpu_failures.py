"""The policy node where the GPU fails in the middle of a run: on a policy that fails as told."""

import threading
import time

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

import rclpy
from fakes import FakePolicy
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from ros_system import Client, running

from vla_trt_ros.config import PolicyConfig, load_platform, load_robot
from vla_trt_ros.datatypes import Reason, State
from vla_trt_ros.errors import BackendError, DeviceLost
from vla_trt_ros.msg import ActionChunk, PolicyStatus
from vla_trt_ros.nodes import policy_node
from vla_trt_ros.nodes.publish import COMMAND_QOS, LATCHED_QOS
from vla_trt_ros.pipeline import Pipeline

pytestmark = pytest.mark.ros

LOST = DeviceLost('running on the GPU: CUDA says cudaErrorLaunchFailure: restart the node.')


class GpuPolicy(FakePolicy):
    """`FakePolicy` with what PolicyInfo tells."""

    image_size = (140, 140)
    prompt_buckets = (24,)
    runtimes = {'vision': 'fake fp32'}  # noqa: RUF012
    closed = 0

    def __init__(self):
        super().__init__()
        self.bundle.manifest = type('Manifest', (), {'family': 'pi05'})
        self.bundle.norm_stats_sha256 = 'e' * 64

    def close(self):
        self.closed += 1
        raise BackendError('closing on a GPU that is gone')


@pytest.fixture(scope='module')
def cameras():
    with running('pattern_node', width=64, height=48), Client() as client:
        client.chunks = client.hear(ActionChunk, 'action_chunk', COMMAND_QOS)
        client.status = client.hear(PolicyStatus, 'policy/status', LATCHED_QOS)
        yield client


@pytest.fixture(params=[1, 2], ids=['one at a time', 'overlapping'])
def policy(cameras, monkeypatch, request):
    """The policy of a node that runs in this process, and its first chunk heard."""
    made = GpuPolicy()
    made.places = request.param

    def load(**_):
        settings = PolicyConfig('pi05', 'fake')
        pipeline = Pipeline(made, load_robot('metaworld'), load_platform('cpu'), settings)
        pipeline.set_prompt('go')
        return pipeline

    monkeypatch.setattr(policy_node, 'load_pipeline', load)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node, executor = policy_node.PolicyNode(), SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    cameras.chunks.clear()
    try:
        cameras.until(lambda: cameras.chunks, what='the first chunk')
        yield made
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.try_shutdown()


def says(client, state, reason, text):
    newest = client.status[-1] if client.status else None
    found = newest and (newest.state, newest.reason) == (state, reason) and text in newest.text
    return bool(found)


def label(client):
    return client.call(GetState, 'policy/get_state', GetState.Request()).current_state.label


def test_an_error_that_passes_holds_and_ends(cameras, policy):
    policy.fault = BackendError('denoise: TensorRT did not run the engine.')
    cameras.until(
        lambda: says(cameras, State.HOLDING, Reason.POLICY_ERROR, 'denoise: TensorRT did not')
    )
    assert cameras.silent(cameras.chunks, 0.3)
    assert 'Traceback' not in cameras.status[-1].text
    policy.fault = None
    cameras.next(cameras.chunks)
    cameras.until(lambda: says(cameras, State.RUNNING, Reason.NONE, ''))
    assert label(cameras) == 'active'


def test_frames_that_the_gpu_does_not_take_are_rejected_and_told(cameras, policy):
    policy.upload_fault = BackendError('allocating 9 bytes: The GPU is full')
    cameras.until(lambda: says(cameras, State.HOLDING, Reason.BAD_IMAGE, 'The GPU is full'))
    rejected = cameras.status[-1].rejected
    cameras.until(lambda: cameras.status[-1].rejected > rejected, what='more rejected frames')
    policy.upload_fault = None
    cameras.next(cameras.chunks)


@pytest.mark.parametrize('where', ['fault', 'upload_fault'])
def test_a_lost_gpu_ends_in_finalized_and_goes_on_saying_so(cameras, policy, where):
    setattr(policy, where, LOST)
    cameras.until(lambda: label(cameras) == 'finalized', what='the finalized state')
    assert policy.closed == 1
    cameras.status.clear()
    for _ in range(2):  # repeated, so that nobody takes it for old
        cameras.next(cameras.status)
        assert says(cameras, State.INACTIVE, Reason.POLICY_ERROR, 'restart the node')
    policy.fault = policy.upload_fault = None
    time.sleep(0.2)
    assert cameras.silent(cameras.chunks, 0.3)
