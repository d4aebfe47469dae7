import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import vla_trt_ros
for name in {modules!r}:
    package = importlib.import_module('vla_trt_ros.' + name)
    for module in pkgutil.walk_packages(getattr(package, '__path__', []), package.__name__ + '.'):
        importlib.import_module(module.name)
loaded = {forbidden!r} & {{m.split('.')[0] for m in sys.modules}}
loaded |= {{m for m in sys.modules if m.startswith(('vla_trt_ros.sim', 'vla_trt_ros.viz'))}}
print(sorted(loaded))
"""


def test_what_runs_on_a_robot_loads_no_simulator():
    modules = ['camera', 'preprocess', 'actions', 'messages', 'pipeline', 'bundle', 'bringup']
    code = CODE.format(modules=modules, forbidden={'mujoco', 'metaworld', 'matplotlib', 'av'})
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_prompts_and_controllers_need_neither_mujoco_nor_ros():
    code = (
        'import sys, vla_trt_ros.sim.prompts, vla_trt_ros.sim.trajectory_controller\n'
        "print(sorted({'mujoco', 'metaworld', 'rclpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
