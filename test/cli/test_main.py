"""The command itself: verbs, help, and errors without a traceback."""

from importlib import import_module

import pytest

from vla_trt_ros.cli import bench
from vla_trt_ros.cli.main import VERBS, main


def test_no_verb_prints_help_and_ends_with_2(capsys):
    assert main([]) == 2
    text = capsys.readouterr().err
    assert all(verb in text for verb in VERBS)
    assert 'vla-trt demo' in text


@pytest.mark.parametrize('verb', [[], *([v] for v in VERBS)], ids=lambda v: v[0] if v else 'none')
def test_help(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([*verb, '--help'])
    assert end.value.code == 0
    assert 'usage: vla-trt' in capsys.readouterr().out


def test_unknown_verb_is_refused_by_name(capsys):
    with pytest.raises(SystemExit) as end:
        main(['dmeo'])
    assert end.value.code == 2
    assert "'dmeo'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['up', 'num_steps:=4'], 'vla-trt up: num_steps:=4 is none of 1, 2, 3, 5, 10.'),
        (['up', 'dryrun:=true'], "unknown argument 'dryrun'; did you mean dry_run?"),
        (['up', '--steps'], None),
        (['doctor', '--robot', 'r2d2'], 'config/robots/r2d2.yaml does not exist'),
        (['bench', '--bundle', 'nope'], 'bundles/nope does not exist; known: nano'),
        (['bench', '--platform', 'xavier'], 'config/platforms/xavier.yaml does not exist'),
        (['bench', '--camera', '640'], "--camera '640': write WIDTHxHEIGHT"),
        (['bench', '--steps', '1;3'], "--steps '1;3': write numbers such as 1,3,10"),
        (['demo', '--steps', '10,x'], "--steps '10,x': write numbers such as 1,3,10"),
        (['demo', 'task:=fly'], "task 'fly' is none of"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words, message, capsys):
    if message is None:
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        return
    assert main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert 'Traceback' not in said


@pytest.mark.parametrize(
    ('module', 'remedy'),
    [('rclpy', "pip install 'vla_trt_ros[ros]', or source"), ('torch', "'vla_trt_ros[export]'")],
)
def test_missing_extra_is_named_with_its_remedy(module, remedy, capsys, monkeypatch):
    monkeypatch.setattr(bench, 'run', lambda args: import_module('vla_trt_ros.no_such_module'))
    with pytest.raises(ModuleNotFoundError):  # a fault of ours stays visible
        main(['bench'])

    def run(args):
        raise ModuleNotFoundError(f'No module named {module!r}', name=module)

    monkeypatch.setattr(bench, 'run', run)
    assert main(['bench']) == 1
    said = capsys.readouterr().err
    assert said.startswith(f'vla-trt bench: {module} is not installed: ')
    assert remedy in said
