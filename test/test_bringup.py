"""What a launch line starts, without starting it."""

import pytest

from vla_trt_ros.bringup import ARGUMENTS, describe, parse, transport_environment
from vla_trt_ros.errors import ConfigError


def parameters(**given):
    return {p.executable: dict(p.parameters) for p in describe(given).processes}


def test_real_robot_by_default_moves_nothing():
    nodes = parameters()
    assert set(nodes) == {'policy_node', 'command_node'}
    assert nodes['command_node']['dry_run'] is True
    assert nodes['policy_node']['dry_run'] is True


def test_simulator_moves_and_has_the_prompt_of_its_task():
    nodes = parameters(sim='true', task='drawer-open')
    assert set(nodes) == {'sim_node', 'policy_node', 'command_node'}
    assert nodes['command_node']['dry_run'] is False
    assert nodes['sim_node']['task'] == 'drawer-open'
    assert 'drawer' in nodes['policy_node']['prompt']


# Every argument reaches what it is for: (argument, value, node, parameter, expected).
WIRING = [
    ('num_steps', '3', 'policy_node', 'num_steps', 3),
    ('platform', 'thor', 'policy_node', 'platform', 'thor'),
    ('bundle', '/b', 'policy_node', 'bundle', '/b'),
    ('prompt', 'wave', 'policy_node', 'prompt', 'wave'),
    ('robot', 'metaworld', 'command_node', 'robot', 'metaworld'),
    ('policy', 'pi05', 'policy_node', 'policy', 'pi05'),
    ('cameras', 'base=/c', 'policy_node', 'cameras', 'base=/c'),
    ('controller', 'position', 'command_node', 'controller', 'position'),
    ('controller', 'robot', 'command_node', 'controller', ''),
    ('dry_run', 'false', 'command_node', 'dry_run', False),
    ('overlap', 'true', 'policy_node', 'overlap', True),
    ('overlap', 'false', 'policy_node', 'overlap', False),
]


@pytest.mark.parametrize(('name', 'value', 'node', 'parameter', 'expected'), WIRING)
def test_argument_reaches_its_parameter(name, value, node, parameter, expected):
    assert parameters(**{name: value})[node][parameter] == expected


def test_the_rest_of_the_arguments():
    system = describe({'namespace': '/left/', 'log_level': 'debug', 'rviz': 'true'})
    assert system.namespace == 'left'
    assert system.log_level == 'debug'
    executables = [p.executable for p in system.processes]
    assert executables == ['command_node', 'policy_node', 'marker_node', 'rviz2']
    assert [p.essential for p in system.processes] == [True, True, False, False]
    tested = {row[0] for row in (*WIRING, *DETECTING)}
    tested |= {'sim', 'task', 'namespace', 'log_level', 'rviz', 'params_file'}
    assert tested == {a.name for a in ARGUMENTS}


# With detectors the policy and they are one process, whose nodes read the same parameters.
DETECTING = [
    ('detectors', '', 'vla_node', 'detectors', ''),
    ('classifiers', '', 'vla_node', 'classifiers', ''),
    ('detector_rates', 'base=2,wrist=/3', 'vla_node', 'rates', 'base=2,wrist=/3'),
    ('detectors_after_chunk', 'true', 'vla_node', 'after_chunk', True),
    ('num_steps', '3', 'vla_node', 'num_steps', 3),
    ('hold_on_labels', 'person', 'command_node', 'hold_on_labels', 'person'),
    ('slow_on_labels', 'cup,dog', 'command_node', 'slow_on_labels', 'cup,dog'),
]


@pytest.mark.parametrize(('name', 'value', 'node', 'parameter', 'expected'), DETECTING)
def test_argument_reaches_the_detectors(tmp_path, name, value, node, parameter, expected):
    bundle = str(tmp_path)  # any folder: what is in it is read by the node
    given = {'detectors': bundle, 'classifiers': f'{bundle}/.', **({name: value} if value else {})}
    found = parameters(**given)
    assert 'policy_node' not in found
    assert found[node][parameter] == (expected or given[name])


def test_nodes_of_one_process_keep_their_names(tmp_path):
    (process,) = [p for p in describe({'detectors': str(tmp_path)}).processes if p.composed]
    assert (process.name, process.module) == ('policy', 'compose')
    assert process.arguments == ('policy', 'perception')


def test_the_watch_asks_for_the_cameras_that_are_looked_at(tmp_path):
    given = {'detectors': str(tmp_path), 'detector_rates': 'base=2', 'hold_on_labels': 'person'}
    assert parameters(**given)['command_node']['watch_cameras'] == 'base'


def test_watch_without_detectors_is_told():
    notes = describe({'hold_on_labels': 'person'}).notes
    assert any('the arm holds until a perception node of your own' in note for note in notes)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'num_steps': '4'}, 'num_steps:=4 is none of 1, 2, 3, 5, 10'),
        ({'num_step': '3'}, r"unknown argument 'num_step'; did you mean num_steps\?"),
        ({'platform': 'xavier'}, 'config/platforms/xavier.yaml does not exist; known: cpu'),
        ({'robot': 'r2d2'}, 'config/robots/r2d2.yaml does not exist'),
        ({'dry_run': 'yes'}, 'dry_run:=yes is none of auto, true, false'),
        ({'sim': 'true', 'task': 'fly'}, 'fly'),
        ({'cameras': 'top=/x'}, "has no view 'top'; it has base, wrist"),
        ({'cameras': 'base'}, "'base' is not view=topic"),
        ({'params_file': 'nope.yaml'}, 'params_file nope.yaml does not exist'),
        ({'detectors': 'nope'}, 'bundles/nope does not exist'),
        ({'detectors': '/', 'classifiers': '/nope/x'}, '/nope/x does not exist'),
        ({'detector_rates': 'top=5'}, "no camera 'top'; there are base, wrist, or all"),
        ({'detector_rates': 'all=often'}, "rate 'often' is neither"),
    ],
)
def test_wrong_values_are_refused_by_name(given, message):
    with pytest.raises(ConfigError, match=message):
        describe(given)


def test_words():
    assert parse(['a:=b', 'c:=']) == {'a': 'b', 'c': ''}
    with pytest.raises(ConfigError, match="'--steps=3': write arguments as name:=value"):
        parse(['--steps=3'])


def test_transport_profile_is_set_unless_the_user_chose():
    (path,) = transport_environment({}).values()
    with open(path, encoding='utf-8') as profile:
        assert 'segment_size' in profile.read()
    assert transport_environment({'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'}) == {}
    assert transport_environment({'RMW_IMPLEMENTATION': 'rmw_zenoh_cpp'}) == {}
