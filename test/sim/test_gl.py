import importlib.util

import pytest

from vla_trt_ros.errors import BackendError
from vla_trt_ros.sim import gl


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    monkeypatch.setattr(gl, 'has_osmesa', lambda: True)


def test_osmesa_is_the_default(monkeypatch, installed):
    monkeypatch.delenv('MUJOCO_GL', raising=False)
    assert gl.choose_gl() == 'osmesa'
    assert gl.os.environ['MUJOCO_GL'] == 'osmesa'


def test_the_users_choice_stays(monkeypatch, installed):
    monkeypatch.setenv('MUJOCO_GL', 'egl')
    monkeypatch.setattr(gl, 'has_osmesa', lambda: False)
    assert gl.choose_gl() == 'egl'
    assert gl.os.environ['MUJOCO_GL'] == 'egl'


def test_a_missing_library_is_named_with_its_remedy(monkeypatch, installed):
    monkeypatch.setenv('MUJOCO_GL', 'osmesa')
    monkeypatch.setattr(gl, 'has_osmesa', lambda: False)
    with pytest.raises(BackendError, match='apt-get install libosmesa6'):
        gl.choose_gl()


def test_a_missing_simulator_is_named_with_its_remedy(monkeypatch, installed):
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'metaworld' else object()
    )
    with pytest.raises(BackendError, match=r'package metaworld: run `pip install .*\[sim\]'):
        gl.choose_gl()


def test_has_osmesa_tries_to_load_it(monkeypatch):
    monkeypatch.setattr(gl, '_OSMESA_LIBRARIES', ('libNoSuchThing.so.9',))
    assert not gl.has_osmesa()
    monkeypatch.setattr(gl, '_OSMESA_LIBRARIES', ('libNoSuchThing.so.9', 'libc.so.6'))
    assert gl.has_osmesa()
