"""One short demo of two tasks: what it leaves behind can be opened and is not empty."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
if find_spec('metaworld') is None:  # not imported here: MuJoCo would choose its OpenGL
    pytest.skip("needs the simulator: pip install '.[sim]'", allow_module_level=True)
pytest.importorskip('onnx', reason='makes a detector with it')
pytest.importorskip('av', reason="needs the video writer: pip install '.[sim]'")

import av
from bright_bundles import bright_detector
from PIL import Image

from vla_trt_ros.viz.boxes import colour_of
from vla_trt_ros.viz.canvas import NEWS

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def run_demo(out, *words):
    return subprocess.run(
        [sys.executable, '-m', 'vla_trt_ros.cli.main', 'demo', '--out', str(out), *words],
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')
    words = ['--tasks', 'drawer-open,reach', '--limit', '2.2', '--steps', '1,3']
    detector = bright_detector(out / 'bright', score_threshold=0.1)
    words += ['prompt:=wave at me', f'detectors:={detector}', 'detector_rates:=base=5']
    done = run_demo(out, *words, '--json', str(out / 'live.json'))
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr + (out / 'nodes.log').read_text()
    return out


def test_summary_counts_chunks_tasks_and_clean_ends(demo):
    summary = json.loads((demo / 'summary.json').read_text())
    assert summary['chunks'] > 10
    assert summary['chunks_per_s'] > 2
    assert summary['exit_statuses'] == {'sim': 0, 'command': 0, 'policy': 0}
    assert {1, 3} <= set(summary['num_steps'])
    tasks = summary['tasks']
    assert [(t['steps'], t['task']) for t in tasks] == [
        (1, 'drawer-open'),
        (1, 'reach'),
        (3, 'drawer-open'),
        (3, 'reach'),
    ]
    assert all(t['episodes'] == 1 for t in tasks)
    assert {t['prompt'] for t in tasks} == {'wave at me'}
    assert {tuple(t['seeds']) for t in tasks} == {(900_000, 900_000)}


def test_what_the_detector_saw_is_counted_and_drawn(demo):
    summary = json.loads((demo / 'summary.json').read_text())
    assert summary['looks'] > 10
    assert summary['looks_with_boxes'] == summary['looks']
    assert 0 < summary['detect_p50_ms'] < 50
    with Image.open(demo / 'scene.png') as page:
        assert colour_of('person') in {
            colour for _, colour in page.convert('RGB').getcolors(1 << 20)
        }


def test_the_nodes_were_told_one_scene_after_another(demo):
    log = (demo / 'nodes.log').read_text()
    scenes = [
        line.split('task ')[1].split(':')[0] for line in log.splitlines() if ': task ' in line
    ]
    assert scenes[-4:] == ['drawer-open', 'reach', 'drawer-open', 'reach']


def test_records_say_that_they_come_from_the_live_loop(demo):
    records = json.loads((demo / 'live.json').read_text())['records']
    assert len(records) == 4
    assert {r['loop'] for r in records} == {'live'}
    assert {(r['bundle'], r['platform'], r['precision']) for r in records} == {
        ('nano', 'cpu', 'fp32')
    }
    assert set(records[0]['stages']) == {'vision', 'prefix', 'denoise'}


def test_video_shows_each_switch(demo):
    with av.open(str(demo / 'demo.mp4')) as video:
        frames = [frame.to_ndarray(format='rgb24') for frame in video.decode(video=0)]
    assert 4 * 12 < len(frames) < 400  # a busy machine takes longer
    assert frames[-1].std() > 10
    # The frame around the pictures has the colour of news at every switch, and not in between.
    marked = [abs(frame[1, 5:-5].astype(int) - NEWS).max() < 40 for frame in frames]
    assert 10 < sum(marked) < len(frames)


def test_plot_is_a_picture(demo):
    with Image.open(demo / 'timing.png') as plot:
        assert min(plot.size) > 200
        assert len(plot.convert('RGB').getcolors(1 << 24)) > 10


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--tasks', 'reech'], "did you mean 'reach'"),
        (['--tasks', 'reach', 'task:=push'], '--tasks or task:='),
        (['--limit', '-2'], '--limit -2.0 must not be negative'),
        (['--seed', '-1'], '--seed -1 must not be negative'),
        (['--steps', '4', '--tasks', 'reach'], 'num_steps 4 is not in this bundle'),
    ],
)
def test_what_cannot_be_played_is_told_in_a_line(tmp_path, words, message):
    done = run_demo(tmp_path, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
