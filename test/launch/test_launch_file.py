"""What pi05.launch.py does with a description, told by stand-ins: runs where launch is missing."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from vla_trt_ros.bringup import ARGUMENTS, describe
from vla_trt_ros.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILE = ROOT / 'launch' / 'pi05.launch.py'
MODULES = (
    *('ament_index_python', 'ament_index_python.packages', 'launch', 'launch.actions'),
    *('launch.event_handlers', 'launch.events', 'launch.events.process'),
    *('launch.substitutions', 'launch_ros', 'launch_ros.actions'),
)


@pytest.fixture
def module(monkeypatch, tmp_path):
    """The launch file; its nodes are namespaces of what they were given."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    # An installation of vla_trt_ros alone, with the executables that CMakeLists.txt installs.
    (tmp_path / 'lib').mkdir()
    (tmp_path / 'lib' / 'vla_trt_ros').symlink_to(ROOT / 'scripts')
    packages = sys.modules['ament_index_python.packages']
    packages.PackageNotFoundError = KeyError
    packages.get_package_prefix = {'vla_trt_ros': tmp_path}.__getitem__
    sys.modules['launch_ros.actions'].Node = SimpleNamespace
    sys.modules['launch.substitutions'].LaunchConfiguration = lambda name: SimpleNamespace(
        perform=lambda context: context.values[name]
    )
    spec = importlib.util.spec_from_file_location('pi05_launch', FILE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def start(module, *typed, **values):
    """The nodes that are started for ``values``."""
    given = {a.name: a.default for a in ARGUMENTS} | values
    actions = module._start(SimpleNamespace(values=given, argv=list(typed)))
    return [a for a in actions if isinstance(a, SimpleNamespace)]


def test_each_process_becomes_a_node_with_its_parameters(module, tmp_path):
    params = tmp_path / 'params.yaml'
    params.write_text('/**:\n  ros__parameters: {}\n')
    values = {'sim': 'true', 'namespace': '/left/', 'params_file': str(params)}
    nodes = start(module, **values)
    processes = describe(values).processes
    assert [n.executable for n in nodes] == [p.executable for p in processes]
    assert [n.name for n in nodes] == ['sim', 'command', 'policy']
    for node, process in zip(nodes, processes, strict=True):
        assert node.namespace == 'left'
        # The arguments come last, so they win.
        assert node.parameters == [str(params), dict(process.parameters)]


def test_nodes_of_one_process_are_not_renamed(module, tmp_path):
    """One name for both would make them twins."""
    nodes = start(module, detectors=str(tmp_path))
    assert [(n.executable, n.name) for n in nodes] == [
        ('command_node', 'command'),
        ('vla_node', None),
    ]
    assert nodes[1].arguments == ['policy', 'perception']
    assert nodes[1].parameters[0]['detectors'] == str(tmp_path)


def test_misspelt_word_is_refused_only_where_it_was_meant_for_this_file(module, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['ros2', 'launch', 'vla_trt_ros', 'pi05.launch.py'])
    with pytest.raises(ConfigError, match=r"unknown argument 'dryrun'; did you mean dry_run\?"):
        start(module, 'dryrun:=true')
    assert len(start(module, 'launch-prefix:=gdb', 'num_steps:=3')) == 2
    monkeypatch.setattr(sys, 'argv', ['ros2', 'launch', 'a_robot', 'all.launch.py'])
    assert len(start(module, 'dryrun:=true')) == 2


def test_what_is_not_installed_is_told_before_anything_starts(module):
    with pytest.raises(ConfigError, match='rviz2 is not installed: install the package rviz2'):
        start(module, rviz='true')


def test_status_of_a_dead_node_stops_launch_with_an_error(module):
    running, ending = SimpleNamespace(is_shutdown=False), SimpleNamespace(is_shutdown=True)
    dead = SimpleNamespace(process_name='policy_node-2', returncode=-9)
    with pytest.raises(RuntimeError, match='policy_node-2 ended with status -9'):
        module._stop_all(dead, running)
    assert module._stop_all(dead, ending) == []
    assert len(module._stop_all(SimpleNamespace(process_name='x', returncode=0), running)) == 1
