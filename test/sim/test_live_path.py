"""Perfect chunks through command gate, trajectory controller and simulator still solve the tasks,
nearly as fast as targets applied one by one. benchmarks/live_path.py has the figures.
"""

import importlib.util
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / 'benchmarks' / 'live_path.py'
if find_spec('metaworld') is None:  # not imported here: MuJoCo would choose its OpenGL
    pytest.skip("needs the simulator: pip install '.[sim]'", allow_module_level=True)
if not BENCHMARK.is_file():
    pytest.skip('the benchmarks are not beside the tests', allow_module_level=True)


@pytest.fixture(scope='module')
def live_path():
    spec = importlib.util.spec_from_file_location('live_path', BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize('task', ['pick-place', 'drawer-open'])
def test_the_live_path_costs_little_more_than_the_fade_in(live_path, task):
    from vla_trt_ros.sim.metaworld import MetaWorld

    env = MetaWorld(task, width=16, height=16)
    by_name = {way.name: way for way in live_path.WAYS}
    ideal = live_path.lockstep(env, 900_000)
    assert ideal is not None
    for name, most in (('60 ms', 25), ('60 ms, no fade-in', 10)):
        steps = live_path.live(env, 900_000, by_name[name])
        assert steps is not None, name
        assert steps <= ideal + most, name
    env.close()
