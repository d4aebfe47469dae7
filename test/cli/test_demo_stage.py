"""Turns played on nodes that are made up: when they end, and what is counted and shown."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from vla_trt_ros.cli.demo_stage import Stage, caption, outcome, status_line
from vla_trt_ros.cli.demo_turns import turns
from vla_trt_ros.errors import VlaError
from vla_trt_ros.viz.boxes import Box, colour_of
from vla_trt_ros.viz.canvas import GOOD, NEWS

TURN, OTHER = turns(['reach', 'pick-place'], seed=900, steps=[3], limit=0.3)


class Nodes:
    """Monitor, director, children and recorder in one: the scene is solved ``after`` seconds."""

    def __init__(self, after):
        self.after = after
        self.calls = []
        self.marks = []
        self.timings = [(0.0, SimpleNamespace(num_steps=3))]
        self.status = {'command': SimpleNamespace(state=3, reason=0)}
        self.pictures = {'base': np.zeros((4, 4, 3), np.uint8)}
        self.rate_hz = 20.0
        self.dead = None
        self._begun = None
        self.seen = ''
        self.chunk = None
        self.looked_at = {}.get
        self.filmed = {}

    @property
    def solved_at(self):
        return None if self._begun is None else self._begun + self.after

    @property
    def success(self):
        self.timings.append(self.timings[0])
        return self._begun is not None and time.monotonic() >= self.solved_at

    def recent(self, field, seconds=5.0):
        return np.array([])

    def set_num_steps(self, n):
        self.calls.append(n)

    def begin(self, task, seed, prompt):
        self.calls.append((task, seed, prompt))
        self._begun = time.monotonic()

    def hold(self):
        self.calls.append('hold')

    def ended(self):
        return self.dead

    def wants(self, now):
        return True

    def add(self, now, pictures, text, mark):
        self.marks.append(mark)
        self.text = text
        self.filmed = pictures

    def boxes(self, view):
        return [Box(0, 0, 3, 3, '', 'cup')] if view == self.seen else []


def staged(after, **kind):
    nodes = Nodes(after)
    stage = Stage(nodes, nodes, linger=kind.get('linger', 0.05))
    stage.recorder = nodes
    return nodes, stage


@pytest.mark.alone
def test_a_solved_turn_ends_at_success_is_marked_and_the_arm_held(capsys):
    nodes, stage = staged(after=0.1)
    one = stage.play(nodes, TURN)
    assert one.success
    assert one.finished
    assert one.seconds == pytest.approx(0.1, abs=0.02)
    assert one.chunks > 1
    assert nodes.calls == [3, ('reach', 900, 'reach the goal'), 'hold']
    colours = [mark.colour for mark in nodes.marks]
    assert colours[0] == NEWS
    assert colours[-1] == GOOD
    assert 'reach: "reach the goal"\n1 of 1 solved' in nodes.text
    assert 'solved after 0.1 s' in capsys.readouterr().out


@pytest.mark.alone
def test_an_unsolved_turn_ends_at_its_limit_and_counts():
    nodes, stage = staged(after=9.0)
    one = stage.play(nodes, TURN)
    assert (one.success, one.finished) == (False, True)
    assert one.seconds == pytest.approx(0.3, abs=0.1)
    assert 'not solved' in outcome(one)


def test_the_end_of_the_demo_cuts_a_turn_short_which_then_does_not_count():
    nodes, stage = staged(after=9.0)
    one = stage.play(nodes, TURN, until=0.1)
    assert (one.success, one.finished) == (False, False)
    assert 'cut short' in outcome(one)
    assert '0 of 0 solved' in caption(nodes, TURN, stage.played)


def test_step_counts_are_told_only_where_they_change():
    nodes, stage = staged(after=0.01, linger=0.0)
    stage.play(nodes, TURN)
    stage.play(nodes, OTHER)
    assert [call for call in nodes.calls if isinstance(call, int)] == [3]
    line = status_line(nodes, OTHER, stage.played, 1.0)
    assert 'pick-place "pick up the puck' in line
    assert '2 of 2 solved' in line
    assert 'RUNNING' in line


def test_a_node_that_ends_ends_the_demo():
    nodes, stage = staged(after=9.0)
    nodes.dead = ('policy', 1)
    with pytest.raises(VlaError, match='policy ended with status 1'):
        stage.play(nodes, TURN)


@pytest.mark.parametrize('seen', ['base', 'wrist'])
def test_film_shows_what_detectors_saw_in_the_camera_they_saw_it_in(seen):
    nodes = Nodes(after=0.1)
    nodes.seen = seen
    nodes.pictures['wrist'] = nodes.pictures['base']
    stage = Stage(nodes, nodes, linger=0.0)
    stage.recorder = nodes
    stage.play(nodes, TURN)
    marked = {view: tuple(picture[2, 2]) for view, picture in nodes.filmed.items()}
    assert marked.pop(seen) == colour_of('cup')
    assert set(marked.values()) == {(0, 0, 0)}
    assert not nodes.pictures['base'].any()
    assert stage.scene is None  # the turn was over before its mark was gone
