"""vla-trt replay, whole: bags of 24 frame pairs through nano."""

import argparse
import csv
import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import BEGIN_NS, ROBOT, TEXT, Script, make
from replay_command import replay

from vla_trt_ros.cli import replay as cli
from vla_trt_ros.config import share_dir
from vla_trt_ros.replay import session
from vla_trt_ros.replay.columns import columns
from vla_trt_ros.replay.gates import check_gates, parse_gate
from vla_trt_ros.replay.summary import metric_names

pytestmark = pytest.mark.usefixtures('shared_engines')

PAIRS = 24


def rows(out):
    with (out / 'per_frame.csv').open(newline='') as stream:
        return list(csv.DictReader(stream))


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.outside, self.kinds = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.kinds.add(tag)
        links = [v for k, v in attrs if k in ('src', 'href', 'xlink:href')]
        self.outside += [v for v in links if not v.startswith('data:')]
        if tag not in ('meta', 'img', 'br', 'link'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_holds_everything_and_asks_for_nothing(whole_replay):
    text = (whole_replay / 'report.html').read_text()
    page = Page()
    page.feed(text)
    assert not page.open
    assert not page.outside
    assert not page.kinds & {'script', 'link', 'iframe'}
    assert '@import' not in text
    assert 'url(' not in text
    assert text.count('data:image/jpeg') >= 2
    assert 'nano fp32 1 step' in text
    assert 'prefers-color-scheme:dark' in text
    assert text.count('<polyline') >= 4 * 3


def test_metrics_are_those_of_the_frames(whole_replay):
    report = json.loads((whole_replay / 'report.json').read_text())
    found = rows(whole_replay)
    assert len(found) == 2 * PAIRS
    for setting in report['settings']:
        mine = [r for r in found if r['setting'] == setting['name']]
        assert setting['metrics']['frames'] == len(mine) == PAIRS
        mean = np.mean([float(r['mae_h1']) for r in mine])
        assert setting['metrics']['mae_h1'] == pytest.approx(mean, rel=1e-4)
        per_joint = [setting['metrics'][f'mae_h1.{n}'] for n in ('hand_x', 'hand_y', 'hand_z')]
        assert all(0.0 < m < 1.0 for m in per_joint)
        assert setting['counts']['ticks'] == PAIRS
    assert report['facts']['done was'] == 'commands to the controller'
    # Row k of a chunk is held against the command of its time: position_at(k + 1).
    first = next(r for r in found if r['index'] == '3')
    assert float(first['recorded.gripper']) == pytest.approx(0.04)


def test_first_setting_is_what_the_others_are_compared_with(whole_replay):
    (comparison,) = json.loads((whole_replay / 'report.json').read_text())['comparisons']
    assert comparison['reference'] == 'nano fp32 1 step'
    found = {d['metric']: d for d in comparison['differences']}
    a, b = ([float(r['mae_all']) for r in rows(whole_replay)[k * PAIRS :][:PAIRS]] for k in (0, 1))
    assert found['mae_all']['mean'] == pytest.approx(np.mean(b) - np.mean(a), abs=1e-6)
    assert found['mae_all']['frames'] == PAIRS


def test_same_bag_same_numbers(replay_bag, whole_replay, tmp_path, capsys):
    assert replay(capsys, replay_bag, '--steps', '1', '--out', tmp_path / 'again')[0] == 0
    timed = ('inference_ms',)
    for a, b in zip(rows(whole_replay), rows(tmp_path / 'again'), strict=False):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


def test_resume_does_what_is_missing(whole_replay, replay_bag, tmp_path, capsys):
    out = tmp_path / 'out'
    shutil.copytree(whole_replay, out)
    kept, lost = sorted((out / 'parts').iterdir())
    before = (kept / 'part.json').stat().st_mtime_ns
    (lost / 'part.json').unlink()
    words = (replay_bag, '--steps', '1,3', '--out', out)
    status, _, err = replay(capsys, *words)
    assert status == 1
    assert 'holds the parts of another run: go on with --resume' in err
    assert replay(capsys, *words, '--resume')[0] == 0
    assert (kept / 'part.json').stat().st_mtime_ns == before
    assert (lost / 'part.json').exists()
    status, _, err = replay(capsys, *words, '--resume', '--prompt', 'open the drawer')
    assert status == 1
    assert "made with prompt '', this run has 'open the drawer'" in err


def test_ctrl_c_keeps_what_is_whole(replay_bag, tmp_path, capsys, monkeypatch):
    run_part, done = session.run_part, []

    def stopped(*args, **options):
        if done:
            raise KeyboardInterrupt
        done.append(run_part(*args, **options))

    monkeypatch.setattr(session, 'run_part', stopped)
    words = (replay_bag, '--steps', '1,3', '--out', tmp_path / 'out')
    status, out, _ = replay(capsys, *words)
    assert status == 130
    assert '--resume goes on' in out
    monkeypatch.undo()
    assert replay(capsys, *words, '--resume')[0] == 0


def test_gates_decide_the_status_with_a_line_each(whole_replay, replay_bag, tmp_path, capsys):
    shutil.copytree(whole_replay, tmp_path / 'out')
    words = (replay_bag, '--steps', '1,3', '--out', tmp_path / 'out', '--resume')
    status, out, _ = replay(capsys, *words, '--gate', 'mae_h1<=9', '--gate', 'frames>=24')
    assert status == 0
    assert out.count('pass  ') == 4
    status, out, _ = replay(capsys, *words, '--gate', 'mae_h1<=9', '--gate', 'mae_all<=1e-9')
    assert status == 1
    assert 'FAIL  mae_all<=1e-09  nano fp32 3 steps: 0.' in out
    assert 'class="fail"' in (tmp_path / 'out' / 'report.html').read_text()


def test_noises_are_replays_of_the_same_frames(replay_bag, tmp_path, capsys):
    out = tmp_path / 'out'
    words = ('--steps', '1', '--noises', '2', '--seed', '5', '--out', out)
    assert replay(capsys, replay_bag, *words)[0] == 0
    found = rows(out)
    assert [r['seed'] for r in found] == ['5'] * PAIRS + ['6'] * PAIRS
    assert found[0]['action.hand_x'] != found[PAIRS]['action.hand_x']
    metrics = json.loads((out / 'report.json').read_text())['settings'][0]['metrics']
    assert metrics['mae_all_seed_std'] > 0.0


def test_nothing_is_carried_from_bag_to_bag(tmp_path, capsys):
    told = Script()
    told.add('policy/prompt', TEXT, BEGIN_NS, make(TEXT, 'open the drawer'))
    bags = [told.steps(6).write(tmp_path / 'told'), Script().steps(6).write(tmp_path / 'silent')]
    out = tmp_path / 'out'
    assert replay(capsys, *bags, '--steps', '1', '--out', out)[0] == 0
    parts = sorted((out / 'parts').glob('*/part.json'))
    facts = [json.loads(path.read_text())['facts'] for path in parts]
    assert [f['moments'][0]['prompt'] for f in facts] == ['open the drawer', 'reach the goal']


def test_equal_bundles_differ_by_nothing(replay_bag, tmp_path, capsys):
    twin = tmp_path / 'twin'
    shutil.copytree(share_dir() / 'bundles' / 'nano', twin)
    manifest = json.loads((twin / 'manifest.json').read_text())
    manifest['name'] = 'twin'
    (twin / 'manifest.json').write_text(json.dumps(manifest))
    out = tmp_path / 'out'
    words = ('--steps', '1', '--against', f'{twin}/', '--out', out)
    assert replay(capsys, replay_bag, *words)[0] == 0
    (comparison,) = json.loads((out / 'report.json').read_text())['comparisons']
    assert (comparison['setting'], comparison['reference']) == (
        'nano fp32 1 step',
        'twin fp32 1 step',
    )
    exact = [d for d in comparison['differences'] if d['metric'] != 'inference_ms']
    assert len(exact) > 6
    assert all(d['mean'] == 0.0 for d in exact)


def test_real_clock_drops_what_comes_too_fast(replay_bag, tmp_path, capsys):
    out = tmp_path / 'out'
    words = ('--steps', '1', '--clock', 'real', '--latency-ms', '130', '--out', out)
    assert replay(capsys, replay_bag, *words)[0] == 0
    setting = json.loads((out / 'report.json').read_text())['settings'][0]
    assert setting['metrics']['deadline_miss_rate'] == 1.0
    assert setting['metrics']['inference_p50_ms'] == pytest.approx(130.0)
    assert setting['metrics']['num_frames_sent'] == 2 * PAIRS
    used = 2 * setting['counts']['ticks']
    assert setting['metrics']['num_missed_frames'] == 2 * PAIRS - used > PAIRS


def lines_of(page):
    """The words of each `vla-trt replay` line of a page."""
    text = (share_dir() / 'docs' / page).read_text(encoding='utf-8')
    found = re.findall(r'^vla-trt replay (.*?)(?: +#.*| \|\| .*)?$', text, re.MULTILINE)
    return [shlex.split(line) for line in found]


def test_pages_tell_options_and_metrics_that_exist():
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    lines = [*lines_of('replay.md'), *lines_of('howto/judge-a-bag.md')]
    assert len(lines) >= 8
    known = metric_names(columns(ROBOT, 10), real=True)
    for words in lines:
        args = parser.parse_args(words)
        check_gates([parse_gate(text) for text in args.gate], known)
    text = (share_dir() / 'docs' / 'replay.md').read_text(encoding='utf-8')
    options = {o for a in parser._actions for o in a.option_strings if o not in ('-h', '--help')}
    assert {o for o in options if f'`{o}' not in text} == set()
    plain = {n for n in known if '.' not in n}
    spelt = {n for n in plain if f'`{n}`' in text}
    assert plain - spelt <= {
        *(f'mse_{h}' for h in ('h5', 'h10', 'all')),
        *(f'{n}_p{q}_ms' for n in ('inference', 'latency') for q in (95, 99)),
        'image_age_ms',
        'state_age_ms',
    }
