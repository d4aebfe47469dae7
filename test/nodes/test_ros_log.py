"""Log lines of rooms that know no ROS reach ROS's log, each at its own severity."""

import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

pytestmark = pytest.mark.ros

CODE = """
import logging
from vla_trt_ros.nodes.run import RosLog
log = logging.getLogger('vla_trt_ros.policies')
log.setLevel(logging.INFO)
log.addHandler(RosLog())
for round in (1, 2):
    log.debug('not this')
    log.info('%d of 60 CUDA graphs captured', round)
    log.warning('queued piece by piece')
    log.error('broken')
"""


def test_lines_keep_their_severity():
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, check=True)
    lines = [line.split(' ') for line in (done.stdout + done.stderr).splitlines()]
    told = [(words[0], ' '.join(words[2:])) for words in lines]
    once = [('[ERROR]', '[vla_trt_ros]: broken')]
    assert [w for w, _ in told] == ['[INFO]', '[WARN]', '[ERROR]'] * 2
    assert told[0][1].endswith('[vla_trt_ros]: 1 of 60 CUDA graphs captured')
    assert told[5][1].endswith(once[0][1])
