"""One bag under one setting, from the first message to a part on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_trt_ros.bags.reader import BagReader
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import NS
from vla_trt_ros.errors import BadInput, ConfigError
from vla_trt_ros.pipeline import Pipeline
from vla_trt_ros.replay.columns import columns
from vla_trt_ros.replay.drive import Drive, Event, Latency, Tick
from vla_trt_ros.replay.judge import Judge, Judged
from vla_trt_ros.replay.kinematics import Chain
from vla_trt_ros.replay.moments import WorstMoments
from vla_trt_ros.replay.parts import PartWriter
from vla_trt_ros.replay.recorded import SOURCES, RecordedActions, Source

Ticks = Callable[[Iterator[Event]], Iterator[tuple[Event | None, Tick | None]]]
"""Whatever turns events into ticks: `Drive.run`, or a node that is fed them over topics."""

Watch = Callable[[Iterator[Event]], Iterator[Event]]
"""Events as they come, for a progress bar."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How all parts of a replay are run."""

    latency: Latency | None = None
    """None: the fast clock."""
    every: int = 1
    prompt: str = ''
    """Told in place of the recording's; empty: the recording's, else the policy file's."""
    source: Source | None = None
    """What counts as done; None: the first of `SOURCES` that the bag has."""
    tip: Chain | None = None


def choose_source(bag: BagReader, wanted: Source | None) -> Source:
    """What of ``bag`` counts as done; ConfigError where it lacks the ``wanted`` one."""
    held = [s for s in SOURCES if s in bag.kinds]
    if wanted is not None and wanted not in held:
        raise ConfigError(
            f'--actions {wanted}: {bag.paths[0]} has none; it has {", ".join(held) or "nothing"}.'
        )
    if not held:
        raise ConfigError(f'{bag.paths[0]} holds nothing that was done: no commands, no joints.')
    return wanted or held[0]


def run_part(
    bag: BagReader,
    pipeline: Pipeline,
    manner: Manner,
    folder: Path,
    conditions: Mapping[str, Any],
    *,
    watch: Watch = iter,
) -> None:
    """Replay ``bag``, which is one recording, and write the part ``folder``.

    ``conditions`` names 'num_steps' and 'seed', which are used, and whatever else tells parts
    apart. ConfigError where no pair of frames could be judged: the text says why.
    """
    pipeline.set_num_steps(conditions['num_steps'])
    prompt = manner.prompt or pipeline.settings.prompt
    if prompt:
        pipeline.set_prompt(prompt)
    pipeline.reset()
    pipeline.policy.reseed(conditions['seed'])
    drive = Drive(
        pipeline,
        latency=manner.latency,
        every=manner.every,
        follow_prompts=not manner.prompt,
        prompted=bool(prompt),
    )
    found = judge_ticks(
        bag,
        drive.run,
        pipeline.robot,
        pipeline.policy.horizon,
        manner,
        folder,
        conditions,
        lambda: _counts(drive, pipeline),
        watch=watch,
    )
    if not found:
        why = drive.first_refusal or pipeline.readiness(drive.counts['pairs']).text
        raise ConfigError(
            f'{bag.paths[0]}: not one of {drive.counts["pairs"]} frame pairs became a chunk. {why}'
        )


def judge_ticks(
    bag: BagReader,
    ticks: Ticks,
    robot: RobotConfig,
    horizon: int,
    manner: Manner,
    folder: Path,
    conditions: Mapping[str, Any],
    counts: Callable[[], dict[str, int]],
    *,
    watch: Watch = iter,
) -> int:
    """Judge what ``ticks`` makes of the events of ``bag``; the part is whole behind it.

    Returns how many frames were judged; with none the part stays unfinished.
    """
    source = choose_source(bag, manner.source)
    recorded = RecordedActions(robot, source)
    worst = WorstMoments(robot)
    judge: Judge | None = None
    begin = time.perf_counter()
    events = watch(bag.events('camera', 'joints', 'prompt', 'status', source))
    with PartWriter(folder, conditions, columns(robot, horizon)) as writer:
        for event, tick in ticks(events):
            found: list[Judged] = []
            if event is not None:
                judge = judge or Judge(robot, horizon, recorded, event.time_ns, manner.tip)
                if event.time_ns < recorded.known_ns - NS:
                    # The clock began anew: what waits for its rows will not see them.
                    found += judge.ready(end=True)
                _note(recorded, event)
            if judge is not None:
                if tick is not None:
                    judge.add(tick)
                found += judge.ready(end=event is None)
            for judged in found:
                writer.add(judged.values)
                worst.offer(judged)
        if writer.rows:
            writer.finish(
                {
                    'source': source,
                    'counts': counts(),
                    'notes': bag.notes(),
                    'seconds': round(time.perf_counter() - begin, 3),
                    'moments': worst.as_json(),
                }
            )
    return writer.rows


def _note(recorded: RecordedActions, event: Event) -> None:
    recorded.advance(event.time_ns)
    if event.kind != recorded.source:
        return
    try:
        recorded.offer(event.time_ns, event.payload)
    except BadInput:  # the bag's facts count it
        return


def _counts(drive: Drive, pipeline: Pipeline) -> dict[str, int]:
    """The drive's, the frames' over all cameras, and the joint states'."""
    stats = pipeline.frames.stats().values()
    frames = {
        'frames_sent': sum(s.received + s.rejected for s in stats),
        'frames_dropped': sum(s.dropped for s in stats),
        'frames_rejected': sum(s.rejected for s in stats),
    }
    return drive.counts.counts | frames | pipeline.joints.counters.counts
