import numpy as np
import pytest
from PIL import Image

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.viz.canvas import GOOD, Canvas, Mark
from vla_trt_ros.viz.recorder import Recorder

av = pytest.importorskip('av', reason='of the simulator extra: pip install .[sim]')

RED, BLUE = (200, 20, 20), (20, 20, 200)


def picture(colour, height=224, width=224):
    image = np.empty((height, width, 3), np.uint8)
    image[:] = colour
    return image


def pair(k=0):
    return {'base': picture((50 + k, 20, 20)), 'wrist': picture(BLUE)}


def read(path):
    """Frames of a film, RGB, and its frame rate."""
    if path.suffix == '.gif':
        with Image.open(path) as film:
            pages = []
            for k in range(film.n_frames):
                film.seek(k)
                pages.append(np.asarray(film.convert('RGB')))
            return pages, 1000.0 / film.info['duration']
    with av.open(str(path)) as film:
        rate = float(film.streams.video[0].average_rate)
        assert film.streams.video[0].codec_context.name == 'h264'
        assert film.streams.video[0].codec_context.pix_fmt == 'yuv420p'
        return [f.to_ndarray(format='rgb24') for f in film.decode(video=0)], rate


def test_canvas_puts_the_views_side_by_side_in_their_colours():
    canvas = Canvas(('base', 'wrist'))
    page = canvas.draw({'base': picture(RED), 'wrist': picture(BLUE)}, 'at rest')
    assert page.shape == (canvas.size[1], canvas.size[0], 3)
    assert page[100, 100].tolist() == list(RED)
    assert page[100, 100 + 228].tolist() == list(BLUE)
    assert canvas.size[0] % 2 == canvas.size[1] % 2 == 0


def test_canvas_keeps_the_aspect_of_a_wide_picture():
    page = Canvas(('base',)).draw({'base': picture(RED, 480, 640)}, '')
    is_red = (page == RED).all(axis=2)
    rows, columns = np.flatnonzero(is_red.any(axis=1)), np.flatnonzero(is_red.any(axis=0))
    assert (len(rows), len(columns)) == (168, 224)


def test_canvas_writes_the_caption_and_says_where_a_view_is_missing():
    canvas = Canvas(('base', 'wrist'))
    blank = canvas.draw({'base': picture(RED)}, '')
    told = canvas.draw({'base': picture(RED)}, 'HOLDING: no image')
    assert (blank[:230] == told[:230]).all()
    assert (blank[232:] != told[232:]).any()
    tile = blank[60:200, 240:440]
    assert tile.max() > 100  # 'no image'
    assert canvas.draw({}, 'x' * 500).shape == blank.shape


def test_canvas_has_room_for_two_lines_and_a_mark_in_its_colour():
    canvas = Canvas(('base', 'wrist'))
    pictures = {'base': picture(RED), 'wrist': picture(BLUE)}
    one, two = canvas.draw(pictures, 'one'), canvas.draw(pictures, 'one\ntwo')
    assert one.shape == two.shape
    assert (one[:230] == two[:230]).all()
    assert two[-16:].max() > 200
    assert one[-16:].max() < 200
    marked = canvas.draw(pictures, 'one', Mark('solved', GOOD))
    assert (marked[0] == GOOD).all()  # a frame around both pictures
    assert (marked[215] == GOOD).all(axis=1).mean() > 0.7  # the strip, but for its letters
    assert marked[215].max() > 200
    assert marked[100, 100].tolist() == list(RED)
    assert (marked[240:] == one[240:]).all()


@pytest.mark.parametrize('suffix', ['.mp4', '.gif'])
def test_a_film_opens_again_with_every_frame(tmp_path, suffix):
    path = tmp_path / 'out' / f'film{suffix}'
    with Recorder(path) as recorder:
        for k in range(30):
            assert recorder.add(100.0 + k / 10, pair(6 * k), f'chunk {k}')
    pages, rate = read(path)
    assert recorder.frames == len(pages) == 30
    assert rate == pytest.approx(10.0)
    for k in (0, 15, 29):
        assert abs(int(pages[k][100, 100, 0]) - (50 + 6 * k)) < 12
        assert pages[k][100, 330, 2] > 150


def test_fast_frames_are_left_out_and_gaps_repeat_the_last(tmp_path):
    path = tmp_path / 'film.mp4'
    with Recorder(path, fps=10.0) as recorder:
        taken = [recorder.add(k / 40, pair(), '') for k in range(40)]  # 40 Hz for a second
        assert sum(taken) == 10
        assert not recorder.wants(0.95)
        assert recorder.wants(1.0)
        recorder.add(2.0, pair(150), 'after a gap')
    pages, _ = read(path)
    assert len(pages) == 21
    assert pages[15][100, 100, 0] < 70
    assert pages[20][100, 100, 0] > 180


def test_it_stops_taking_frames_at_its_limit(tmp_path):
    with Recorder(tmp_path / 'film.gif', fps=10.0, max_seconds=0.5) as recorder:
        for k in range(20):
            recorder.add(k / 10, pair(8 * k), '')
    assert (recorder.frames, recorder.dropped) == (5, 15)
    assert len(read(recorder.path)[0]) == 5


def test_a_clock_that_jumps_back_adds_nothing(tmp_path):
    with Recorder(tmp_path / 'film.gif') as recorder:
        recorder.add(10.0, pair(), '')
        assert not recorder.add(3.0, pair(), '')
        assert recorder.add(10.1, pair(), '')


def test_nothing_recorded_is_an_error_and_leaves_no_file(tmp_path):
    recorder = Recorder(tmp_path / 'film.mp4')
    with pytest.raises(ConfigError, match=r'film\.mp4: no frame was recorded'):
        recorder.close()
    assert not (tmp_path / 'film.mp4').exists()


def test_the_first_error_is_not_hidden(tmp_path):
    with pytest.raises(ValueError, match='mine'), Recorder(tmp_path / 'film.mp4'):
        raise ValueError('mine')


def test_what_it_cannot_write_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r'ends in \.mp4 or \.gif'):
        Recorder(tmp_path / 'film.avi')
    with pytest.raises(ConfigError, match='fps'):
        Recorder(tmp_path / 'film.gif', fps=0.0)
    (tmp_path / 'film.mp4').mkdir()
    with pytest.raises(ConfigError, match='cannot be written'):
        Recorder(tmp_path / 'film.mp4')
