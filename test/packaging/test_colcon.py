"""`colcon build` in a workspace, with the ROS of this environment as the distribution below it."""

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

LOOK = """
import json, pathlib
import vla_trt_ros, vla_trt_ros.config as config, vla_trt_ros.datatypes as datatypes
from rclpy.serialization import deserialize_message, serialize_message
from vla_trt_ros.msg import ActionChunk
from vla_trt_ros.srv import SetPrompt
chunk = deserialize_message(serialize_message(ActionChunk(actions=[0.5, -2.0])), ActionChunk)
prompt = serialize_message(SetPrompt.Request(prompt='reach'))
maps = pathlib.Path('/proc/self/maps').read_text().split()
print(json.dumps({
    'package': vla_trt_ros.__file__,
    'doc': bool(vla_trt_ros.__doc__),
    'datatypes': datatypes.__file__,
    'share': str(config.share_dir()),
    'platforms': config.available('platforms'),
    'actions': chunk.actions.tolist(),
    'prompt_bytes': len(prompt),
    'libraries': sorted({w for w in maps if 'vla_trt_ros' in w and w.endswith('.so')}),
}))
"""


@pytest.fixture(scope='module')
def colcon(source, tmp_path_factory):
    path = tmp_path_factory.mktemp('colcon') / 'venv'
    run([sys.executable, '-m', 'venv', path], cwd=path.parent)
    pip = [path / 'bin/pip', 'install', '-q', '-c', source / 'constraints.txt']
    run([*pip, 'setuptools', 'colcon-common-extensions'], cwd=path.parent)
    return path / 'bin/colcon'


@pytest.fixture(scope='module', params=['copies', 'symlinks'])
def workspace(request, colcon, source, tmp_path_factory):
    """An install space of copied files, or one of links into the source."""
    space = tmp_path_factory.mktemp('ws')
    (space / 'src').mkdir()
    (space / 'src/vla_trt_ros').symlink_to(source)
    env = clean_env(
        AMENT_PREFIX_PATH=sys.prefix,
        CMAKE_PREFIX_PATH=sys.prefix,
        PATH=os.pathsep.join([os.path.join(sys.prefix, 'bin'), os.environ['PATH']]),
    )
    options = ['--symlink-install'] if request.param == 'symlinks' else []
    define = [f'-DPython3_EXECUTABLE={sys.executable}', '-DBUILD_TESTING=OFF']
    for _ in ('first build', 'again'):
        run([colcon, 'build', *options, '--cmake-args', *define], cwd=space, env=env)
    return space


def look(workspace, tmp_path):
    """What a Python sees after `source install/setup.bash`, in a folder that has nothing to do
    with it. The environment of the tests has an editable install of the same package, which must
    not be what is found.
    """
    command = f'. {workspace}/install/setup.bash && exec {sys.executable} -c "$0"'
    # Kept: LD_LIBRARY_PATH of this process, as an activated environment has it, below colcon's.
    keep = ('LD_LIBRARY_PATH', '_ROS_WHEELS_BOOTSTRAP_COMPLETE')
    env = clean_env(**{key: os.environ[key] for key in keep if key in os.environ})
    return json.loads(run(['bash', '-c', command, LOOK], cwd=tmp_path, env=env))


def test_messages_and_modules_are_one_package_of_the_install_space(workspace, tmp_path):
    seen = look(workspace, tmp_path)
    prefix = f'{workspace}/install/vla_trt_ros/'
    assert seen['package'].startswith(prefix)
    assert seen['datatypes'].startswith(prefix)
    assert seen['doc'], "the package's __init__.py is rosidl's empty one, not ours"
    assert seen['actions'] == [0.5, -2.0]
    assert seen['prompt_bytes'] > len('reach')
    assert seen['libraries']
    assert [path for path in seen['libraries'] if not path.startswith(str(workspace))] == []
    assert 'cpu' in seen['platforms']


def test_install_space_is_complete(workspace, source):
    prefix = workspace / 'install/vla_trt_ros'
    for folder in ('config', 'launch', 'bundles'):
        for path in (source / folder).rglob('*'):
            if path.is_file():
                installed = prefix / 'share/vla_trt_ros' / path.relative_to(source)
                assert installed.read_bytes() == path.read_bytes()
    site = next(prefix.glob('lib/python3.*/site-packages'))
    for path in (source / 'vla_trt_ros').rglob('*.py'):
        assert (site / path.relative_to(source)).is_file(), path
    for script in (source / 'scripts').iterdir():
        assert os.access(prefix / 'lib/vla_trt_ros' / script.name, os.X_OK), script.name
    assert (prefix / 'share/vla_trt_ros/package.xml').is_file()
    index = prefix / 'share/ament_index/resource_index'
    assert 'msg/ActionChunk.msg' in (index / 'rosidl_interfaces/vla_trt_ros').read_text()
