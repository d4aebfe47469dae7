"""The picture of precisions."""

from types import SimpleNamespace

import cv2
import pytest

pytest.importorskip('matplotlib', reason="needs the sim extra: pip install '.[sim]'")

from vla_trt_ros.errors import BadInput
from vla_trt_ros.viz.parity_plot import plot_parity


def score(precision, part, steps, cosine):
    return SimpleNamespace(
        precision=precision, part=part, steps=steps, cosine=cosine, worst=cosine - 0.001
    )


def test_every_precision_is_drawn_also_an_exact_one_and_one_without_a_stage(tmp_path):
    scores = [
        score('fp32', 'vision', None, 1.001),
        score('bf16', 'vision', None, 0.999),
        *(score(p, 'policy', n, c) for p, c in (('fp32', 1.0), ('bf16', 0.99)) for n in (1, 10)),
    ]
    few = plot_parity(scores[:1], tmp_path / 'few.png', title='one')
    path = plot_parity(scores, tmp_path / 'new' / 'all.png', title='bundle demo')
    one, image = cv2.imread(str(few)), cv2.imread(str(path))
    assert image.shape == one.shape == (550, 1320, 3)
    assert (image != one).any(axis=-1).mean() > 0.005


def test_nothing_to_draw(tmp_path):
    with pytest.raises(BadInput, match='no scores'):
        plot_parity([], tmp_path / 'none.png', title='')
