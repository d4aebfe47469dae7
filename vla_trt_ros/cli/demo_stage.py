"""Plays turns on running nodes, and shows them: a status line and a film."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_trt_ros.cli.demo_turns import Played, Turn, solved
from vla_trt_ros.cli.processes import Children
from vla_trt_ros.datatypes import Reason, State, Uint8Array
from vla_trt_ros.errors import VlaError
from vla_trt_ros.viz.boxes import Box, draw_boxes
from vla_trt_ros.viz.canvas import GOOD, NEWS, Mark

if TYPE_CHECKING:
    from vla_trt_ros.nodes.director import Director
    from vla_trt_ros.nodes.monitor import Monitor
    from vla_trt_ros.viz.recorder import Recorder

_FRAME = 0.03  # seconds between looks at the cameras
_NEWS = 1.5  # seconds for which a film tells of a new task


@dataclass(frozen=True, slots=True)
class SceneSeen:
    """One moment: pictures without and with what was found in them, by view."""

    pictures: Mapping[str, Uint8Array]
    boxes: Mapping[str, Sequence[Box]]
    chunk: Any
    """ActionChunk message, or None."""
    words: str

    @property
    def found(self) -> int:
        """Boxes in all views."""
        return sum(map(len, self.boxes.values()))


class Stage:
    """One turn after another on the nodes that ``monitor`` watches.

    ``linger`` is how many seconds a solved scene stays in view.
    """

    def __init__(
        self,
        monitor: Monitor,
        children: Children,
        *,
        linger: float = 1.0,
    ) -> None:
        self._monitor = monitor
        self._children = children
        self._linger = linger
        self._turn: Turn | None = None
        self._told = 0.0
        self._mark: Mark | None = None
        self._begin = time.monotonic()
        self.scene: SceneSeen | None = None
        """The latest moment of those with the most boxes, while the arm moved."""
        self.recorder: Recorder | None = None
        """What films; None: nothing does."""
        self.played: list[Played] = []

    @property
    def seconds(self) -> float:
        """Since the stage was made."""
        return time.monotonic() - self._begin

    def play(self, director: Director, turn: Turn, until: float = np.inf) -> Played:
        """Play ``turn`` to success, its limit, or `seconds` of ``until``; the arm then holds.

        VlaError: a node ended, does not answer or refuses.
        """
        monitor = self._monitor
        if self._turn is None or self._turn.num_steps != turn.num_steps:
            monitor.set_num_steps(turn.num_steps)
        self._turn, self._told = turn, time.monotonic()
        self._mark = Mark(f'{turn.task}: {turn.prompt}', NEWS)
        switch = time.monotonic()
        director.begin(turn.task, turn.seed, turn.prompt)
        begin = self._told = time.monotonic()
        first = len(monitor.timings)
        end = min(begin + turn.limit, self._begin + until)
        while time.monotonic() < end and not monitor.success:
            self.look()
            time.sleep(_FRAME)
        success = bool(monitor.success)
        finish = monitor.solved_at if success and monitor.solved_at else time.monotonic()
        one = Played(
            turn,
            success,
            seconds=finish - begin,
            chunks=len(monitor.timings) - first,
            switch=begin - switch,
            finished=success or finish >= begin + turn.limit,
        )
        self.played.append(one)
        if success:
            self._show_success(one)
        director.hold()
        self._say(outcome(one))
        return one

    def look(self) -> None:
        """Film what the cameras see now, and tell how it goes; VlaError where a node ended."""
        ended = self._children.ended()
        if ended is not None:
            raise VlaError(f'{ended[0]} ended with status {ended[1]} during the demo.')
        now = time.monotonic()
        pictures = dict(self._monitor.pictures)
        if self.recorder is not None and pictures and self.recorder.wants(now):
            # What the turn is stays in view for a moment after the arm was let go.
            news = self._mark is not None and self._mark.colour == NEWS
            mark = None if news and now > self._told + _NEWS else self._mark
            words = caption(self._monitor, self._turn, self.played)
            boxes = {view: self._monitor.boxes(view) for view in pictures}
            found = sum(map(len, boxes.values()))
            if mark is None and found and (self.scene is None or found >= self.scene.found):
                self.scene = self._scene(pictures, boxes, words)
            drawn = {view: draw_boxes(p, boxes[view]) for view, p in pictures.items()}
            self.recorder.add(now, drawn, words, mark)
        if sys.stdout.isatty():
            line = status_line(self._monitor, self._turn, self.played, self.seconds)
            print(f'\r{line:<118}', end='', flush=True)

    def _scene(
        self, pictures: Mapping[str, Uint8Array], boxes: Mapping[str, Sequence[Box]], words: str
    ) -> SceneSeen:
        """With the pictures that the boxes were found in, where they are still there."""
        found = {view: self._monitor.looked_at(view) for view in pictures}
        exact = {v: pictures[v] if p is None else p for v, p in found.items()}
        return SceneSeen(exact, boxes, self._monitor.chunk, words)

    def _show_success(self, one: Played) -> None:
        self._mark = Mark(f'solved after {one.seconds:.1f} s', GOOD)
        end = time.monotonic() + self._linger
        while time.monotonic() < end:
            self.look()
            time.sleep(_FRAME)

    def _say(self, line: str) -> None:
        start = '\r' if sys.stdout.isatty() else ''
        print(f'{start}{line:<118}'.rstrip(' ' if not start else ''), flush=True)


def outcome(one: Played) -> str:
    """How a turn went, as a line."""
    turn = one.turn
    if one.success:
        how = f'solved after {one.seconds:.1f} s'
    else:
        how = f'not solved in {one.seconds:.1f} s' + ('' if one.finished else ', cut short')
    rate = one.chunks / one.seconds if one.seconds else 0.0
    return (
        f'{turn.task:<22} seed {turn.seed}  "{turn.prompt}"  {how}  '
        f'({rate:.1f} chunks/s at {turn.num_steps} steps)'
    )


def status_line(monitor: Monitor, turn: Turn | None, played: list[Played], seconds: float) -> str:
    """What a person wants to know while the arm moves, on one line."""
    end_to_end = monitor.recent('end_to_end_ms')
    p50 = np.percentile(end_to_end, 50) if end_to_end.size else np.nan
    command = monitor.status.get('command')
    state = State(command.state).name if command else 'UNKNOWN'
    if command and command.reason:
        state += f' ({Reason(command.reason).name})'
    task = f'{turn.task} "{turn.prompt}"' if turn else 'no task yet'
    won, episodes = solved(played)
    return (
        f'{seconds:5.1f} s  {task}  {won} of {episodes} solved  {monitor.rate_hz:4.1f} chunks/s '
        f'at {_steps(monitor)} steps  end to end {p50:3.0f} ms  {state}'
    )


def caption(monitor: Monitor, turn: Turn | None, played: list[Played]) -> str:
    """Two short lines under the pictures: what is asked, and how it goes."""
    command = monitor.status.get('command')
    state = State(command.state).name.lower() if command else 'unknown'
    won, episodes = solved(played)
    asked = f'{turn.task}: "{turn.prompt}"' if turn else ''
    return (
        f'{asked}\n{won} of {episodes} solved, {monitor.rate_hz:.0f} chunks/s, '
        f'{_steps(monitor)} steps, {state}'
    )


def _steps(monitor: Monitor) -> int:
    return monitor.timings[-1][1].num_steps if monitor.timings else 0
