"""The command: what it refuses, what it prints and writes, and that Ctrl-C costs nothing."""

import json

import pytest

from vla_trt_ros.cli import sim_eval
from vla_trt_ros.cli.main import main
from vla_trt_ros.evaluation.cases import Outcome
from vla_trt_ros.evaluation.episode import EpisodeResult

ARGUMENTS = ['--tasks', 'reach,push,reach', '--episodes', '2', '--workers', '2']


@pytest.fixture
def runs(monkeypatch):
    """What was asked to be run; every episode but push on the second seed succeeds. The list
    ``stop_after`` makes Ctrl-C come after so many episodes.
    """

    class Runs(list):
        stop_after = ()

    asked = Runs()

    def run_cases(setup, cases, *, workers):
        asked.append((setup, list(cases), workers))
        for number, case in enumerate(cases):
            if number in asked.stop_after:
                raise KeyboardInterrupt
            won = (case.task, case.seed) != ('push', 900_001)
            result = EpisodeResult(
                case.task, case.seed, case.num_steps, 'words', won, 40, 8, 0.5, (10.0,) * 8
            )
            yield Outcome(case, case.task, result)

    monkeypatch.setattr(sim_eval, 'run_cases', run_cases)
    return asked


def run(*words):
    return main(['sim', 'eval', *ARGUMENTS, *map(str, words)])


def test_table_file_and_plot(runs, tmp_path, capsys):
    pytest.importorskip('matplotlib', reason="needs the sim extra: pip install '.[sim]'")
    path, plot = tmp_path / 'new' / 'success.json', tmp_path / 'plot.png'
    assert run('--steps', '1,10', '--json', path, '--plot', plot) == 0
    [(setup, cases, workers)] = runs
    assert workers == 2
    assert setup.tasks == ('reach', 'push')
    assert [c.seed for c in cases] == [900_000, 900_001] * 4
    assert [c.task for c in cases] == ['reach'] * 4 + ['push'] * 4
    assert {c.num_steps for c in cases} == {1, 10}
    said = capsys.readouterr().out
    assert 'fp32: vision onnxruntime fp32, prefix onnxruntime fp32' in said
    assert '50.0 [9, 91] of 2' in said
    records = json.loads(path.read_text())
    assert [(r['task'], r['steps'], r['successes'], r['episodes']) for r in records] == [
        ('reach', 1, 2, 2),
        ('reach', 10, 2, 2),
        ('push', 1, 1, 2),
        ('push', 10, 1, 2),
    ]
    assert records[2]['seeds'] == [900_000, 900_001]
    assert records[2]['failed_seeds'] == [900_001]
    assert records[0]['chunks_per_s'] == 16.0
    assert len(records[0]['bundle_sha256']) == 64
    assert plot.stat().st_size > 5000


def test_ctrl_c_keeps_what_is_done_and_resume_does_the_rest(runs, tmp_path, capsys):
    path = tmp_path / 'success.json'
    runs.stop_after = (3,)
    assert run('--json', path) == 130
    said = capsys.readouterr().out
    assert '3 episodes are in' in said
    assert 'reach 100.0 [34, 100] of 2' in ' '.join(said.split())
    assert not path.exists()
    assert run('--json', path) == 1
    assert 'go on with --resume' in capsys.readouterr().err
    runs.stop_after = ()
    assert run('--json', path, '--resume') == 0
    assert [(c.task, c.seed) for c in runs[-1][1]] == [('push', 900_001)]
    assert '3 of 4 episodes are done already' in capsys.readouterr().out
    assert len(json.loads(path.read_text())) == 2
    assert run('--json', path, '--resume') == 0
    assert runs[-1][1] == []
    assert 'mean' in capsys.readouterr().out


def test_resume_takes_another_setting_into_the_same_file(runs, tmp_path):
    path = tmp_path / 'success.json'
    assert run('--json', path) == 0
    assert run('--json', path, '--resume', '--prompts', 'canonical,shuffled') == 0
    assert {c.prompts for c in runs[-1][1]} == {'shuffled'}
    assert [r['prompts'] for r in json.loads(path.read_text())] == [
        *('canonical', 'canonical', 'shuffled', 'shuffled')
    ]


def test_ctrl_c_before_the_first_episode(runs, tmp_path, capsys):
    runs.stop_after = (0,)
    assert run() == 130
    assert run('--json', tmp_path / 'x.json') == 130
    assert 'Traceback' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--env', 'isaac'], "--env 'isaac' is none of metaworld"),
        (['--tasks', 'reech'], "task 'reech' is none of"),
        (['--seed', '17'], 'seeds 17 to 18 are for training'),
        (['--seed', '-3', '--allow-training-seeds'], '--seed -3 is negative'),
        (['--episodes', '0'], '--episodes 0: one at least'),
        (['--steps', '4'], 'num_steps 4 is not in this bundle'),
        (['--steps', '1;3'], "--steps '1;3': write numbers"),
        (['--precision', 'fp8'], "--precision fp8: bundle 'nano' holds"),
        (['--prompts', 'loud'], "--prompts 'loud' is none of canonical, varied, shuffled"),
        (['--tasks', 'reach', '--prompts', 'shuffled'], 'name two or more'),
        (['--bundle', 'nope'], 'bundles/nope does not exist'),
        (['--platform', 'xavier'], 'config/platforms/xavier.yaml does not exist'),
        (['--execute-rows', '9', '--delay-rows', '4'], 'need 13 rows'),
        (['--execute-rows', '0'], 'execute_rows 0'),
        (['--camera', '224'], "--camera '224': write WIDTHxHEIGHT"),
        (['--workers', '-1'], 'must not be negative'),
        (['--resume'], '--resume needs --json FILE'),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(runs, words, message, capsys):
    assert run(*words) == 1
    assert message in capsys.readouterr().err
    assert not runs


def test_training_seeds_on_request(runs):
    assert run('--seed', '5', '--allow-training-seeds') == 0
    assert [c.seed for c in runs[0][1]][:2] == [5, 6]


def test_sim_without_a_command_says_which_there_are(capsys):
    with pytest.raises(SystemExit) as end:
        main(['sim'])
    assert end.value.code == 2
    assert 'COMMAND' in capsys.readouterr().err
