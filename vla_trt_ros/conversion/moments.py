"""A recording at the robot's control rate: at each step what was seen, felt and done.

Steps begin when every camera and the joint states are there. At a step, pictures are the newest
ones, the state is interpolated to it as the policy does, and the action is what was done in the
step that begins there (`replay.recorded`). An episode ends where the bag does, where the prompt
changes, and where everything is silent for a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.actions.layout import pick_joints
from vla_trt_ros.bags.reader import BagReader, Event
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import (
    NS,
    CameraFrame,
    Counters,
    Float32Array,
    JointSample,
)
from vla_trt_ros.errors import BadInput
from vla_trt_ros.joints import JointHistory
from vla_trt_ros.replay.recorded import RecordedActions, Source

_SILENCE_NS = NS


@dataclass(frozen=True, slots=True)
class Moment:
    """One control step. ``state`` float32 [S] in the order of the robot's state names, ``action``
    float32 [D], absolute, in the order of its joints.
    """

    episode: int
    stamp_ns: int
    frames: dict[str, CameraFrame]
    state: Float32Array
    action: Float32Array
    prompt: str


class Moments:
    """The steps of ``bag``; ``counts`` says what was left out: 'no_action', 'stale_image' and
    'no_state'. Without ``views`` the pictures are not read.
    """

    def __init__(
        self, bag: BagReader, robot: RobotConfig, source: Source, views: tuple[str, ...] = ()
    ) -> None:
        self._bag = bag
        self._robot = robot
        self._source = source
        self._views = views
        self._episode = 0
        self.counts = Counters()
        self._begin()

    def __iter__(self) -> Iterator[Moment]:
        kinds = ('joints', 'prompt', 'status', self._source, *(('camera',) if self._views else ()))
        prompt, bag, last_ns = '', 0, 0
        for event in self._bag.events(*kinds):
            if isinstance(event.content, BadInput) or event.kind == 'status':
                continue
            silent = last_ns and not 0 <= event.time_ns - last_ns + _SILENCE_NS < 2 * _SILENCE_NS
            told = event.kind == 'prompt' and event.payload != prompt
            if event.bag != bag or silent or told:
                yield from self._end(prompt)
            bag, last_ns = event.bag, event.time_ns
            if told:
                prompt = event.payload
            self._recorded.advance(event.time_ns)
            self._offer(event)
            yield from self._known(prompt, event.time_ns - 2 * self._robot.step_ns)
        yield from self._end(prompt)

    def _begin(self) -> None:
        self._recorded = RecordedActions(self._robot, self._source)
        self._joints = JointHistory('joints', self._robot.safety.max_state_age_ms)
        self._frames: dict[str, CameraFrame] = {}
        self._next_ns = 0
        self._pending: deque[tuple[int, dict[str, CameraFrame], JointSample]] = deque()
        self._given = 0

    def _offer(self, event: Event) -> None:
        if event.kind == self._source:
            self._recorded.offer(event.time_ns, event.payload)
        if event.kind == 'joints':
            self._joints.offer(event.payload)
        elif event.kind == 'camera' and event.name in self._views:
            self._catch_up(event.payload.stamp_ns)
            self._frames[event.name] = event.payload
        if not self._next_ns and len(self._frames) == len(self._views) and self._joints.newest():
            stamps = [f.stamp_ns for f in self._frames.values()]
            newest = self._joints.newest()
            assert newest is not None
            self._next_ns = max(stamps, default=newest.stamp_ns)
        elif event.kind == 'joints' and not self._views:
            self._catch_up(event.payload.stamp_ns)

    def _catch_up(self, before_ns: int) -> None:
        """Take down every step that begins before ``before_ns``: nothing newer comes for it."""
        while self._next_ns and self._next_ns < before_ns:
            self._take(self._next_ns)
            self._next_ns += self._robot.step_ns

    def _take(self, at_ns: int) -> None:
        ages = {
            view: (at_ns - frame.stamp_ns) / 1e6 - self._robot.cameras[view].max_age_ms
            for view, frame in self._frames.items()
        }
        sample = self._joints.at(at_ns)
        if any(age > 0 for age in ages.values()):
            self.counts.add('stale_image')
        elif sample is not None:
            self._pending.append((at_ns, dict(self._frames), sample))

    def _known(self, prompt: str, until_ns: int) -> Iterator[Moment]:
        step_ns = self._robot.step_ns
        while self._pending and self._pending[0][0] <= until_ns:
            at_ns, frames, sample = self._pending.popleft()
            action = self._recorded.rows(at_ns, step_ns, 1)[0]
            self._recorded.forget(at_ns)
            try:
                state = pick_joints(sample, self._robot.state_names).astype(np.float32)
            except BadInput:
                self.counts.add('no_state')
                continue
            if not np.isfinite(action).all():
                self.counts.add('no_action')
                continue
            self._given += 1
            yield Moment(self._episode, at_ns, frames, state, action.astype(np.float32), prompt)

    def _end(self, prompt: str) -> Iterator[Moment]:
        if self._next_ns:
            self._catch_up(self._next_ns + 1)
        yield from self._known(prompt, 1 << 63)
        self._episode += self._given > 0
        self._begin()
