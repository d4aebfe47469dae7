"""One short demo: what it leaves behind can be opened and is not empty."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
if find_spec('metaworld') is None:  # not imported here: MuJoCo would choose its OpenGL
    pytest.skip("needs the simulator: pip install '.[sim]'", allow_module_level=True)
pytest.importorskip('av', reason="needs the video writer: pip install '.[sim]'")

import av
from PIL import Image

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')
    words = ['demo', '--seconds', '4', '--out', str(out), '--steps', '1,3', 'task:=drawer-open']
    done = subprocess.run(
        [sys.executable, '-m', 'vla_trt_ros.cli.main', *words],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr + (out / 'nodes.log').read_text()
    return out


def test_summary_counts_chunks_and_clean_ends(demo):
    summary = json.loads((demo / 'summary.json').read_text())
    assert summary['chunks'] > 10
    assert summary['chunks_per_s'] > 2
    assert summary['exit_statuses'] == {'sim': 0, 'command': 0, 'policy': 0}
    assert {1, 3} <= set(summary['num_steps'])


def test_video_plays_for_as_long_as_the_demo_ran(demo):
    with av.open(str(demo / 'demo.mp4')) as video:
        frames = [frame.to_ndarray(format='rgb24') for frame in video.decode(video=0)]
    assert 25 <= len(frames) <= 55
    assert frames[-1].std() > 10


def test_plot_is_a_picture(demo):
    with Image.open(demo / 'timing.png') as plot:
        assert min(plot.size) > 200
        assert len(plot.convert('RGB').getcolors(1 << 24)) > 10
