"""How the policy node starts where something is wrong, and how it ends."""

import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from ros_system import Client, command, running

from vla_trt_ros.msg import ActionChunk
from vla_trt_ros.nodes.publish import COMMAND_QOS

pytestmark = pytest.mark.ros

WRONG = [
    ({'bundle': './nowhere'}, 'nowhere'),
    ({'robot': 'so101'}, 'so101'),
    ({'platform': 'thor'}, 'tensorrt'),
    ({'overlap': True}, 'vision of platform cpu is on onnxruntime. Set overlap to false'),
    ({'platform': 'xavier'}, 'config/platforms/xavier.yaml does not exist; known: cpu'),
    ({'cameras': 'top=/x'}, "no view 'top'"),
    ({'prompt': 'far ' * 500}, 'tokens'),
]


@pytest.mark.parametrize(('parameters', 'message'), WRONG)
def test_wrong_start_ends_with_the_reason_and_status_1(parameters, message):
    done = subprocess.run(
        command('policy_node', **parameters), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('number', [2, 15], ids=['SIGINT', 'SIGTERM'])
@pytest.mark.parametrize('times', [1, 2])
def test_signals_end_a_busy_node_cleanly(number, times):
    with (
        running('pattern_node'),
        running('policy_node') as process,
        Client() as listener,
    ):
        chunks = listener.hear(ActionChunk, 'action_chunk', COMMAND_QOS)
        listener.until(lambda: chunks, 30, 'the first chunk')
        for _ in range(times):
            process.send_signal(number)
        assert process.wait(15) == 0
    log = '\n'.join(process.log)
    assert 'Traceback' not in log
    assert 'Error' not in log


RESTARTING = """
import signal
from rclpy.node import Node
from vla_trt_ros.nodes.run import run_node

def make():
    node = Node('idle')
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.siginterrupt(number, False)
    print('ready', flush=True)
    return node

raise SystemExit(run_node(make, []))
"""


@pytest.mark.parametrize('number', [2, 15], ids=['SIGINT', 'SIGTERM'])
def test_a_signal_that_interrupts_no_wait_ends_the_node_too(number):
    """A GPU's libraries leave signals so that system calls go on behind them."""
    process = subprocess.Popen([sys.executable, '-c', RESTARTING], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b'ready\n'
        time.sleep(0.3)  # until it waits
        process.send_signal(number)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
