"""Makes the helpers in test/ importable everywhere, and keeps the tests' DDS to themselves."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Before any rclpy: other robots on this machine or network must not hear the tests.
if 'PYTEST_XDIST_WORKER' in os.environ:  # each of its processes has a domain of its own
    os.environ['ROS_DOMAIN_ID'] = str(10 + os.getpid() % 90)
os.environ.setdefault('ROS_DOMAIN_ID', str(10 + os.getpid() % 90))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
_profile = Path(__file__).parent.parent / 'config' / 'dds' / 'fastdds_large_shm.xml'
os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(_profile))

# A shell starts what it puts in the background with Ctrl-C ignored, which every child inherits;
# tests that press Ctrl-C on their children would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def simulator():
    """Skips where Meta-World cannot run. Import it inside the test: it chooses MuJoCo's OpenGL."""
    from vla_trt_ros.errors import BackendError
    from vla_trt_ros.sim.gl import choose_gl

    try:
        choose_gl()
    except BackendError as error:
        pytest.skip(str(error))
