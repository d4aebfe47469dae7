"""Commands in an environment that knows nothing of this one."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What an activated environment, or the ROS wheels' start-up, leaves to the processes below it.
INHERITED = (
    '_ROS_WHEELS_BOOTSTRAP_COMPLETE',
    'AMENT_PREFIX_PATH',
    'CMAKE_PREFIX_PATH',
    'COLCON_PREFIX_PATH',
    'LD_LIBRARY_PATH',
    'PYTHONHOME',
    'PYTHONPATH',
    'VIRTUAL_ENV',
)


def clean_env(**changes):
    """This process's environment less what would let one installation see another."""
    env = {key: value for key, value in os.environ.items() if key not in INHERITED}
    return env | changes


def run(command, *, cwd, env=None):
    """Stdout of a command that has to succeed; its whole output is the message if it does not."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env or clean_env(),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        tail = (result.stdout + result.stderr)[-6000:]
        pytest.fail(f'{command} ended with {result.returncode}:\n{tail}', pytrace=False)
    return result.stdout.strip()
