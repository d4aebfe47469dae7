"""vla-trt replay, whole: bags of 24 frame pairs through nano."""

import argparse
import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from bag_files import (
    BASE,
    BEGIN_NS,
    COMMAND,
    IMAGE,
    JOINTS,
    ROBOT,
    STATES,
    STEP_NS,
    TEXT,
    WRIST,
    Script,
    cut,
    image,
    make,
    position_at,
    states,
    storage_file,
)

from vla_trt_ros.cli import replay as cli
from vla_trt_ros.cli.main import main
from vla_trt_ros.config import share_dir
from vla_trt_ros.datatypes import NS
from vla_trt_ros.replay import session
from vla_trt_ros.replay.columns import columns
from vla_trt_ros.replay.gates import check_gates, parse_gate
from vla_trt_ros.replay.summary import metric_names

PAIRS = 24


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return Script().steps(PAIRS).write(tmp_path_factory.mktemp('bags') / 'one')


@pytest.fixture(scope='module', autouse=True)
def engines():
    """Loads the engines of a bundle once for all tests of this file."""
    load, loaded = session.load_pipeline, {}

    def cached(**options):
        key = (options['bundle'], options['platform'])
        if key not in loaded:
            loaded[key] = load(**options)
            loaded[key].policy.close = lambda: None
        return loaded[key]

    session.load_pipeline = cached
    yield
    session.load_pipeline = load


@pytest.fixture(scope='module')
def whole(bag, tmp_path_factory):
    """A replay at 1 and 3 steps: its folder."""
    out = tmp_path_factory.mktemp('replay') / 'out'
    assert main(['replay', str(bag), '--steps', '1,3', '--out', str(out)]) == 0
    return out


def replay(capsys, *words):
    """Status, what was printed, what was complained of."""
    status = main(['replay', *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


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


def test_page_holds_everything_and_asks_for_nothing(whole):
    text = (whole / 'report.html').read_text()
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


def test_metrics_are_those_of_the_frames(whole):
    report = json.loads((whole / 'report.json').read_text())
    found = rows(whole)
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


def test_first_setting_is_what_the_others_are_compared_with(whole):
    (comparison,) = json.loads((whole / 'report.json').read_text())['comparisons']
    assert comparison['reference'] == 'nano fp32 1 step'
    found = {d['metric']: d for d in comparison['differences']}
    a, b = ([float(r['mae_all']) for r in rows(whole)[k * PAIRS :][:PAIRS]] for k in (0, 1))
    assert found['mae_all']['mean'] == pytest.approx(np.mean(b) - np.mean(a), abs=1e-6)
    assert found['mae_all']['frames'] == PAIRS


def test_same_bag_same_numbers(bag, whole, tmp_path, capsys):
    assert replay(capsys, bag, '--steps', '1', '--out', tmp_path / 'again')[0] == 0
    timed = ('inference_ms',)
    for a, b in zip(rows(whole), rows(tmp_path / 'again'), strict=False):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


def test_resume_does_what_is_missing(whole, bag, tmp_path, capsys):
    out = tmp_path / 'out'
    shutil.copytree(whole, out)
    kept, lost = sorted((out / 'parts').iterdir())
    before = (kept / 'part.json').stat().st_mtime_ns
    (lost / 'part.json').unlink()
    words = (bag, '--steps', '1,3', '--out', out)
    status, _, err = replay(capsys, *words)
    assert status == 1
    assert 'holds the parts of another run: go on with --resume' in err
    assert replay(capsys, *words, '--resume')[0] == 0
    assert (kept / 'part.json').stat().st_mtime_ns == before
    assert (lost / 'part.json').exists()
    status, _, err = replay(capsys, *words, '--resume', '--prompt', 'open the drawer')
    assert status == 1
    assert "made with prompt '', this run has 'open the drawer'" in err


def test_ctrl_c_keeps_what_is_whole(bag, tmp_path, capsys, monkeypatch):
    run_part, done = session.run_part, []

    def stopped(*args, **options):
        if done:
            raise KeyboardInterrupt
        done.append(run_part(*args, **options))

    monkeypatch.setattr(session, 'run_part', stopped)
    words = (bag, '--steps', '1,3', '--out', tmp_path / 'out')
    status, out, _ = replay(capsys, *words)
    assert status == 130
    assert '--resume goes on' in out
    monkeypatch.undo()
    assert replay(capsys, *words, '--resume')[0] == 0


def test_gates_decide_the_status_with_a_line_each(whole, bag, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / 'out')
    words = (bag, '--steps', '1,3', '--out', tmp_path / 'out', '--resume')
    status, out, _ = replay(capsys, *words, '--gate', 'mae_h1<=9', '--gate', 'frames>=24')
    assert status == 0
    assert out.count('pass  ') == 4
    status, out, _ = replay(capsys, *words, '--gate', 'mae_h1<=9', '--gate', 'mae_all<=1e-9')
    assert status == 1
    assert 'FAIL  mae_all<=1e-09  nano fp32 3 steps: 0.' in out
    assert 'class="fail"' in (tmp_path / 'out' / 'report.html').read_text()


def test_noises_are_replays_of_the_same_frames(bag, tmp_path, capsys):
    out = tmp_path / 'out'
    words = ('--steps', '1', '--noises', '2', '--seed', '5', '--out', out)
    assert replay(capsys, bag, *words)[0] == 0
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


def test_equal_bundles_differ_by_nothing(bag, tmp_path, capsys):
    twin = tmp_path / 'twin'
    shutil.copytree(share_dir() / 'bundles' / 'nano', twin)
    manifest = json.loads((twin / 'manifest.json').read_text())
    manifest['name'] = 'twin'
    (twin / 'manifest.json').write_text(json.dumps(manifest))
    out = tmp_path / 'out'
    words = ('--steps', '1', '--against', f'{twin}/', '--out', out)
    assert replay(capsys, bag, *words)[0] == 0
    (comparison,) = json.loads((out / 'report.json').read_text())['comparisons']
    assert (comparison['setting'], comparison['reference']) == (
        'nano fp32 1 step',
        'twin fp32 1 step',
    )
    exact = [d for d in comparison['differences'] if d['metric'] != 'inference_ms']
    assert len(exact) > 6
    assert all(d['mean'] == 0.0 for d in exact)


def test_real_clock_drops_what_comes_too_fast(bag, tmp_path, capsys):
    out = tmp_path / 'out'
    words = ('--steps', '1', '--clock', 'real', '--latency-ms', '130', '--out', out)
    assert replay(capsys, bag, *words)[0] == 0
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


# Bad input -----------------------------------------------------------------------------------


def refused(capsys, tmp_path, bag, *words):
    status, _, err = replay(capsys, bag, '--steps', '1', '--out', tmp_path / 'out', *words)
    assert status == 1
    assert not (tmp_path / 'out' / 'report.html').exists()
    return err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--gate', 'mae_h2<=1'), 'no such metric; did you mean mae_h'),
        (('--gate', 'mae_h1'), 'write metric<=value'),
        (('--steps', '4'), 'num_steps 4 is not in this bundle'),
        (('--precision', 'fp8'), "--precision fp8: bundle 'nano' holds"),
        (('--against', 'nano'), 'is asked for twice'),
        (('--noises', '0'), '--noises 0: one at least'),
        (('--every', '2', '--clock', 'real'), '--every is of the fast clock'),
        (('--latency-ms', '5'), '--latency-ms is of --clock real'),
        (('--latency-ms', '-5', '--clock', 'real'), '--latency-ms -5 is negative'),
        (('--urdf', 'a.urdf'), '--urdf FILE and --tip LINK go together'),
        (('--actions', 'chunk'), '--actions chunk: .* has none; it has command, joints'),
        (('--topic', 'base'), 'write ROLE=TOPIC'),
        (('--robot', 'franka'), 'metaworld'),
    ],
)
def test_what_cannot_be_asked(bag, tmp_path, capsys, words, message):
    err = refused(capsys, tmp_path, bag, *words)
    assert re.search(message, err), err
    assert not (tmp_path / 'out' / 'parts').exists()


def test_no_camera_topic_and_topics_of_other_names(tmp_path, capsys):
    none = Script().steps(4, skip=(BASE, WRIST)).write(tmp_path / 'none')
    assert "lacks 'base/image_raw' (base)" in refused(capsys, tmp_path, none)
    other = Script().steps(4, rename={BASE: '/cam0/color'}).write(tmp_path / 'other')
    err = refused(capsys, tmp_path, other)
    assert '/cam0/color  sensor_msgs/msg/Image  4 messages' in err
    assert '--topic base=/cam0/color' in err
    words = ('--steps', '1', '--topic', 'base=/cam0/color', '--out', tmp_path / 'out')
    assert replay(capsys, other, *words)[0] == 0


def test_bag_of_another_robot_and_an_empty_one(tmp_path, capsys):
    script = Script().steps(4, skip=(JOINTS,))
    for k in range(4):
        ns = BEGIN_NS + k * STEP_NS
        names = ('shoulder', 'elbow', 'wrist', 'gripper')
        script.add(JOINTS, STATES, ns, states(ns, position_at(k), names))
    bag = script.write(tmp_path / 'other')
    assert 'is of another robot than metaworld' in refused(capsys, tmp_path, bag)
    empty = Script().write(tmp_path / 'empty')
    assert 'is empty' in refused(capsys, tmp_path, empty)


def test_pictures_that_all_came_too_late_say_so(tmp_path, capsys):
    script = Script()
    for k in range(5):
        ns = BEGIN_NS + k * STEP_NS
        script.add(JOINTS, STATES, ns + NS, states(ns + NS, position_at(k)))
        for topic in (BASE, WRIST):
            script.add(topic, IMAGE, ns + NS, image(ns, k))
        script.add(COMMAND, *_command(ns))
    err = refused(capsys, tmp_path, script.write(tmp_path / 'late'))
    assert 'not one of 5 frame pairs became a chunk' in err
    assert 'newest frame is 1000 ms old (max_age_ms 250)' in err


def _command(ns):
    from bag_files import TRAJECTORY, trajectory

    return TRAJECTORY, ns, trajectory(ns, position_at(0))


def judged(capsys, tmp_path, bag):
    status, _, err = replay(capsys, bag, '--steps', '1', '--out', tmp_path / 'out')
    assert status == 0, err
    return json.loads((tmp_path / 'out' / 'report.json').read_text())


def test_odd_bags_are_judged_and_their_oddity_is_told(tmp_path, capsys):
    script = Script().steps(10)
    for k in range(10, 25):  # then the driver lists its joints the other way round
        ns = BEGIN_NS + k * STEP_NS
        names = ('gripper', 'hand_z', 'hand_y', 'hand_x')
        script.add(JOINTS, STATES, ns, states(ns, position_at(k)[::-1], names))
        script.add(BASE, IMAGE, ns, image(ns, k))
        script.add(BASE, IMAGE, ns + STEP_NS // 2, image(ns + STEP_NS // 2, k))
        script.add(WRIST, IMAGE, ns + STEP_NS // 2, image(ns + STEP_NS // 2, k))
    script.add('/rosout', TEXT, BEGIN_NS, make(TEXT, 'hello'))
    report = judged(capsys, tmp_path, script.write(tmp_path / 'odd'))
    notes = '\n'.join(report['notes'])
    assert 'the order of their joints 1 time' in notes
    assert '/rosout' in notes
    counts = report['settings'][0]['counts']
    assert counts['frames_dropped'] == 15  # the faster camera's
    assert counts['ticks'] == 25
    assert '/rosout' in (tmp_path / 'out' / 'report.html').read_text()


def test_time_that_jumps_refuses_what_the_node_would_refuse(tmp_path, capsys):
    script = Script().steps(10)
    for k in range(10, 30):  # the stamps are set back by five seconds, for ten pairs
        log_ns = BEGIN_NS + k * STEP_NS
        ns = log_ns - (5 * NS if k < 20 else 0)
        script.add(JOINTS, STATES, log_ns, states(ns, position_at(k)))
        script.add(BASE, IMAGE, log_ns, image(ns, k))
        script.add(WRIST, IMAGE, log_ns, image(ns, k))
    report = judged(capsys, tmp_path, script.write(tmp_path / 'jump'))
    assert 'stamps jump back 1 time' in '\n'.join(report['notes'])
    counts = report['settings'][0]['counts']
    # Four of each camera are backward, the fifth is a new beginning, and old: six pairs are stale.
    assert counts['frames_rejected'] == 8
    assert counts['refused_STALE_IMAGE'] == 6
    assert counts['ticks'] == 20


def test_cut_bag_is_judged_as_far_as_it_goes(tmp_path, capsys):
    bag = Script().steps(40).write(tmp_path / 'cut')
    cut(storage_file(bag), 0.6)
    report = judged(capsys, tmp_path, bag)
    assert 5 < report['settings'][0]['metrics']['frames'] < 40
    assert report['notes']


def test_full_disk_at_the_report_keeps_parts_and_the_old_report(whole, bag, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(whole, out)
    old = (out / 'report.html').read_text()
    limit = max(f.stat().st_size for f in out.glob('parts/*/*')) + 1
    assert limit < len(old)
    code = (
        'import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
        f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); '
        'from vla_trt_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    )
    words = ['replay', str(bag), '--steps', '1,3', '--resume', '--out', str(out)]
    done = subprocess.run(
        [sys.executable, '-c', code, *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert 'report.html cannot be written: File too large. The parts that are whole' in done.stderr
    assert (out / 'report.html').read_text() == old
    assert not list(out.rglob('*.draft'))
