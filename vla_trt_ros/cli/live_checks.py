"""What ``vla-trt doctor --live`` makes of what was heard on a running robot's topics."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vla_trt_ros.camera.encodings import COMPRESSED, ENCODINGS
from vla_trt_ros.cli.checks import Finding
from vla_trt_ros.config import RobotConfig

if TYPE_CHECKING:
    from vla_trt_ros.nodes.probe import LinkFacts, TopicFacts

_MIN_ARRIVAL = 0.99
_MAX_AGE_MS, _MAX_AHEAD_MS = 1000.0, 50.0


def live(robot: RobotConfig, seconds: float, *, namespace: str = '') -> Iterator[Finding]:
    """Listen to the topics of ``robot`` in ``namespace`` for ``seconds``."""
    from vla_trt_ros.nodes.probe import probe

    seen = probe(robot, seconds, namespace=namespace)
    for key, fact in seen.topics.items():
        yield from _topic(key, fact, robot, seconds)
    for key in ('estop', 'prompt'):
        if seen.links[key].others:
            remedy = f'publish {seen.links[key].topic} reliable and volatile'
            yield _link(key, seen.links[key], remedy)
    yield _controller(seen.links['controller'])


def _topic(key: str, fact: TopicFacts, robot: RobotConfig, seconds: float) -> Iterator[Finding]:
    if fact.other_types:
        text = f'{fact.topic} carries {", ".join(fact.other_types)}, wanted is {fact.kind}'
        remedy = f'correct the topic in robot file {robot.name}'
        if 'Image' in fact.kind:
            remedy += ', or whether the camera is compressed'
        yield Finding(key, 'fail', text, remedy)
        return
    if not fact.publishers:
        remedy = f'start the driver, or correct the topic in robot file {robot.name}'
        yield Finding(key, 'fail', f'nobody publishes {fact.topic}', remedy)
        return
    senders = ', '.join(fact.publishers)
    if not fact.received:
        text = f'nothing came in {seconds:g} s from {senders} on {fact.topic}'
        yield Finding(
            key, 'fail', text, 'does the driver run, and image transport let it through?'
        )
        return
    yield _arrival(key, fact)
    if len(fact.publishers) > 1:
        text = f'{len(fact.publishers)} publishers on {fact.topic}: {senders}'
        yield Finding(key, 'warn', text, 'one of them a topic: stop or remap the others')
    if fact.kind.endswith('/JointState'):
        yield _joint_names(robot, fact)
    else:
        yield from _image(key, fact)


def _arrival(key: str, fact: TopicFacts) -> Finding:
    alone = len(fact.publishers) == 1
    parts = [f'{fact.rate_hz:.1f} Hz on {fact.topic}']
    if alone:
        parts.append(f'{100 * fact.arrival_ratio:.1f} % arrive')
    parts.append(f'newest {fact.newest_age_ms:.0f} ms old')
    parts.append(f'{fact.size} {fact.encoding}'.strip())
    text = ', '.join(filter(None, parts))
    if alone and fact.arrival_ratio < _MIN_ARRIVAL:
        remedy = (
            'give the driver the profile named at image transport; where it has that, this '
            'machine is too busy, or the network too slow for raw images'
        )
        return Finding(key, 'fail', text, remedy)
    if not math.isfinite(fact.newest_age_ms) or fact.newest_age_ms > _MAX_AGE_MS:
        remedy = 'synchronise the clocks (chrony), and let the driver stamp each message'
        return Finding(key, 'fail', text, remedy)
    if fact.newest_age_ms < -_MAX_AHEAD_MS:
        return Finding(key, 'fail', text, 'synchronise the clocks (chrony): stamps lie ahead')
    return Finding(key, 'ok', text)


def _image(key: str, fact: TopicFacts) -> Iterator[Finding]:
    raw = not fact.kind.endswith('/CompressedImage')
    if raw and fact.encoding not in ENCODINGS:
        known = ', '.join(ENCODINGS)
        text = f'encoding {fact.encoding!r} has no row of its own'
        if importlib.util.find_spec('cv_bridge') is None:
            yield Finding(key, 'fail', text, f'let the driver send one of {known}')
        else:
            yield Finding(key, 'warn', f'{text}: cv_bridge converts it', f'faster: {known}')
    if not raw and not any(k in fact.encoding.lower() for k in (*COMPRESSED, 'jpg')):
        text = f'compressed format {fact.encoding!r} is unknown'
        yield Finding(key, 'fail', text, f'let the driver send {" or ".join(COMPRESSED)}')
    if raw and fact.reliable:
        text = f'{fact.topic} is sent reliable: one slow reader can hold up the driver'
        yield Finding(key, 'warn', text, 'set the driver to best effort (sensor data QoS)')


def _joint_names(robot: RobotConfig, fact: TopicFacts) -> Finding:
    fullest = max(fact.names, key=lambda names: len(set(names) & set(robot.joint_names)))
    missing = [n for n in robot.joint_names if n not in fullest]
    if missing:
        text = f'no message names all joints: {", ".join(fullest)} without {", ".join(missing)}'
        remedy = (
            f'correct the names in robot file {robot.name}; parts that publish apart are joined '
            'by joint_state_publisher with source_list'
        )
        return Finding('joint names', 'fail', text, remedy)
    return Finding('joint names', 'ok', f'all of {", ".join(robot.joint_names)}')


def _link(key: str, fact: LinkFacts, remedy: str) -> Finding:
    if fact.mismatch:
        return Finding(key, 'fail', f'QoS mismatch on {fact.topic}: {fact.mismatch[0]}', remedy)
    return Finding(key, 'ok', f'{", ".join(fact.others)} on {fact.topic}')


def _controller(fact: LinkFacts) -> Finding:
    if not fact.others:
        text = f'nobody listens on {fact.topic}: the arm would not move'
        remedy = 'start the controller, or correct controller.topic in the robot file'
        return Finding('controller', 'warn', text, remedy)
    return _link('controller', fact, 'let the controller subscribe volatile')
