"""Boxes on a picture: where they are told, in their label's colour, never outside."""

import numpy as np
import pytest

from vla_trt_ros.viz.boxes import Box, colour_of, draw_boxes

GREY = np.full((120, 160, 3), 90, np.uint8)


def changed(page):
    return (page != GREY).any(axis=2)


def test_frame_has_the_colour_of_its_label_and_the_inside_stays():
    page = draw_boxes(GREY, [Box(40, 50, 100, 90, 'cup 0.90', 'cup')])
    assert tuple(page[70, 40]) == colour_of('cup')
    assert tuple(page[89, 70]) == colour_of('cup')
    assert not changed(page)[60:80, 45:95].any()
    assert not changed(page)[95:].any()
    assert (GREY == 90).all()


def test_words_stand_above_the_box_or_inside_where_there_is_no_room():
    assert changed(draw_boxes(GREY, [Box(10, 60, 60, 100, 'cup', 'cup')]))[45:60].any()
    assert changed(draw_boxes(GREY, [Box(10, 0, 60, 50, 'cup', 'cup')]))[2:12, 15:30].any()


@pytest.mark.parametrize(
    'edges', [(-50, -50, 400, 300), (159, 119, 160, 120), (30, 30, 30, 30), (150, 5, 160, 9)]
)
def test_boxes_over_the_edge_and_empty_ones_are_drawn_without_harm(edges):
    page = draw_boxes(GREY, [Box(*edges, 'a long label of a thing 0.99', 'thing')])
    assert page.shape == GREY.shape
    assert changed(page).any()


def test_picture_of_one_pixel():
    assert draw_boxes(GREY[:1, :1], [Box(0, 0, 1, 1, 'x', 'x')]).shape == (1, 1, 3)
