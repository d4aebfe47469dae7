"""`pip install .[ros]` into an empty environment, with nothing to lean on but the registry."""

import json
import os
import sys

import pytest
from installing import clean_env, run

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


@pytest.fixture(scope='module')
def venv(source, tmp_path_factory):
    path = tmp_path_factory.mktemp('pip') / 'venv'
    run([sys.executable, '-m', 'venv', path], cwd=path.parent)
    install = [path / 'bin/pip', 'install', '-c', source / 'constraints.txt', f'{source}[ros]']
    run(install, cwd=path.parent)
    return path


def python(venv, code, **env):
    return run([venv / 'bin/python', '-c', code], cwd=venv, env=clean_env(**env))


def test_messages_and_service_go_through_the_middleware_s_bytes(venv):
    out = python(
        venv,
        'from rclpy.serialization import deserialize_message as d, serialize_message as s\n'
        'from vla_trt_ros.msg import ActionChunk\n'
        'from vla_trt_ros.srv import SetPrompt\n'
        'chunk = ActionChunk(names=["a", "b"], horizon=2, actions=[1.0, 2.5, -3.0, 0.25])\n'
        'print(d(s(chunk), ActionChunk).actions.tolist())\n'
        'print(d(s(SetPrompt.Request(prompt="reach")), SetPrompt.Request).prompt)\n',
    )
    assert out.splitlines() == ['[1.0, 2.5, -3.0, 0.25]', 'reach']


def test_vision_msgs_come_along_where_ros_lacks_them(venv):
    out = python(
        venv,
        'import vision_msgs\n'
        'from rclpy.serialization import deserialize_message as d, serialize_message as s\n'
        'from vision_msgs.msg import Detection2D, Detection2DArray\n'
        'message = Detection2DArray(detections=[Detection2D(id="a")])\n'
        'print(vision_msgs.__file__)\n'
        'print(d(s(message), Detection2DArray).detections[0].id)\n',
    )
    where, read = out.splitlines()
    assert where.startswith(str(venv))
    assert read == 'a'


def test_share_folder_is_the_environment_s(venv):
    out = python(
        venv,
        'import json, vla_trt_ros.config as c\n'
        'from ament_index_python.packages import get_package_share_directory as ros\n'
        'print(json.dumps([str(c.share_dir()), ros("vla_trt_ros"), c.available("platforms")]))',
        AMENT_PREFIX_PATH=str(venv),
    )
    share, ros_share, platforms = json.loads(out)
    assert share == ros_share == str(venv / 'share/vla_trt_ros')
    assert 'cpu' in platforms


def test_share_folder_has_every_file_of_the_source(venv, source):
    for folder in ('config', 'launch', 'bundles'):
        for path in (source / folder).rglob('*'):
            if path.is_file():
                installed = venv / 'share/vla_trt_ros' / path.relative_to(source)
                assert installed.read_bytes() == path.read_bytes()


def test_every_module_is_installed(venv, source):
    site = next(venv.glob('lib/python3.*/site-packages'))
    paths = [p for kind in ('*.py', '*.cu') for p in (source / 'vla_trt_ros').rglob(kind)]
    modules = {p.relative_to(source) for p in paths}
    missing = {str(m) for m in modules if not (site / m).is_file()}
    assert missing == set()


def test_executables_are_where_ros2_run_looks(venv, source):
    names = {path.name for path in (source / 'scripts').iterdir()}
    assert names >= {'policy_node', 'command_node', 'sim_node', 'vla_node'}
    for name in names:
        assert os.access(venv / 'lib/vla_trt_ros' / name, os.X_OK), name


def test_console_script_answers(venv, source):
    if not (source / 'vla_trt_ros/cli/main.py').exists():
        pytest.skip('vla_trt_ros/cli/main.py does not exist yet')
    assert 'doctor' in run([venv / 'bin/vla-trt', '--help'], cwd=venv)


def test_robot_gets_no_torch_and_no_simulator(venv):
    listed = run([venv / 'bin/pip', 'list', '--format=freeze'], cwd=venv)
    names = {line.split('==')[0].lower() for line in listed.splitlines()}
    assert names >= {'numpy', 'onnxruntime', 'sentencepiece'}
    assert names & {'torch', 'tensorrt', 'mujoco', 'metaworld', 'matplotlib'} == set()


def test_uninstall_leaves_nothing(venv):
    """Last: it takes away what the others look at."""
    before = [p for p in venv.rglob('*vla_trt_ros*') if p.suffix == '.so']
    assert len(before) > 3
    run([venv / 'bin/pip', 'uninstall', '-y', 'vla_trt_ros'], cwd=venv)
    ours = ('*vla_trt_ros*', '*vision_msgs*')
    left = [p for pattern in ours for p in venv.rglob(pattern) if p.is_file()]
    assert left == []
