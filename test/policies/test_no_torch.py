"""A robot that runs ONNX engines needs neither torch nor tensorrt."""

import subprocess
import sys

PROGRAM = """
import sys
import numpy as np
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import load_platform, share_dir
from vla_trt_ros.datatypes import CameraFrame, Observation
from vla_trt_ros.policies.registry import load_policy_from

pixels = np.arange(112 * 112 * 3, dtype=np.uint8)
frame = CameraFrame(1, 1, '', 'rgb8', 112, 112, 336, pixels)
policy = load_policy_from(open_bundle(share_dir() / 'bundles' / 'nano'), load_platform('cpu'))
observation = Observation({'base': frame}, np.ones(4, np.float32), 'reach the goal')
print(policy.infer(observation, num_steps=10).actions.shape)
heavy = {'torch', 'tensorrt', 'onnx', 'mujoco', 'rclpy', 'matplotlib'}
print(sorted(heavy.intersection(sys.modules)))
print([m for m in sys.modules if m.startswith('vla_trt_ros.export')])
"""


def test_nano_runs_without_torch_or_tensorrt():
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ['(10, 4)', '[]', '[]']
