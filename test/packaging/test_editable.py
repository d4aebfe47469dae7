"""`pip install -e .`: the environment that runs these tests, seen from another folder."""

import importlib.metadata
import json
import sys

import pytest
from installing import ROOT, clean_env, run

pytestmark = [pytest.mark.packaging, pytest.mark.ros]


@pytest.fixture(autouse=True, scope='module')
def editable():
    told = importlib.metadata.distribution('vla_trt_ros').read_text('direct_url.json')
    if not json.loads(told or '{}').get('dir_info', {}).get('editable'):
        pytest.skip('vla_trt_ros is not installed with pip install -e in this environment')


def python(code, cwd, **env):
    return run([sys.executable, '-c', code], cwd=cwd, env=clean_env(**env))


def test_modules_and_share_folder_are_the_checkout_s(tmp_path):
    code = (
        'import vla_trt_ros.config as c, vla_trt_ros.msg as m\n'
        'print(c.__file__, c.share_dir(), m.__file__, sep="\\n")'
    )
    config, share, msg = python(code, tmp_path).splitlines()
    assert config == str(ROOT / 'vla_trt_ros/config.py')
    assert share == str(ROOT)
    assert msg == str(ROOT / 'vla_trt_ros/msg/__init__.py')


def test_messages_are_of_today_s_definitions(tmp_path):
    """A field of a .msg file that the generated class lacks: install again."""
    code = (
        'import json, vla_trt_ros.msg as m\n'
        'print(json.dumps({n: list(getattr(m, n).get_fields_and_field_types())'
        ' for n in dir(m) if n[0].isupper() and not n.endswith("_")}))'
    )
    generated = json.loads(python(code, tmp_path))
    assert set(generated) == {path.stem for path in (ROOT / 'msg').glob('*.msg')}
    for name, fields in generated.items():
        lines = (ROOT / f'msg/{name}.msg').read_text().splitlines()
        code_lines = [line.split('#')[0].split() for line in lines]
        declared = [words[1] for words in code_lines if words and '=' not in words]
        assert fields == declared


def test_ros_finds_the_package(tmp_path):
    code = (
        'from ament_index_python.packages import get_package_prefix\n'
        'print(get_package_prefix("vla_trt_ros"))'
    )
    assert python(code, tmp_path, AMENT_PREFIX_PATH=sys.prefix) == sys.prefix
