"""What was found wrong or odd while a bag was read: counted, named, and put in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vla_trt_ros.bags.clock import BagClock
from vla_trt_ros.bags.parts import TopicInfo
from vla_trt_ros.datatypes import NS, Counters, JointSample


@dataclass(slots=True)
class BagFacts:
    """Of one bag. ``counts`` has 'bad_<kind>', 'joint_order_changes' and 'joint_set_changes'."""

    path: Path
    clock: BagClock = field(default_factory=BagClock)
    counts: Counters = field(default_factory=Counters)
    losses: list[str] = field(default_factory=list)
    """Files that are missing, cut or broken."""
    ignored: tuple[TopicInfo, ...] = ()
    """Topics that have no part in it, of known types and unknown ones."""
    steady: frozenset[str] = frozenset()
    """Topics that come all the time, of which a silence is told: cameras and joint states."""
    expected: dict[str, int] = field(default_factory=dict)
    """Topic -> messages that metadata.yaml promised, of the topics that were read."""
    first_bad: dict[str, str] = field(default_factory=dict)
    """Kind -> why the first bad message of it could not be used."""
    joint_names: tuple[str, ...] = ()
    """Of the newest joint states."""

    @property
    def messages(self) -> int:
        """Messages read."""
        return sum(topic.messages for topic in self.clock.topics.values())

    @property
    def missing_messages(self) -> int:
        """How many fewer than metadata.yaml promised."""
        read = self.clock.topics
        return sum(
            max(0, count - (read[topic].messages if topic in read else 0))
            for topic, count in self.expected.items()
        )

    def see_bad(self, kind: str, why: str) -> None:
        """A message that could not be used."""
        self.counts.add(f'bad_{kind}')
        self.first_bad.setdefault(kind, why)

    def see_joints(self, sample: JointSample) -> None:
        """Joint states: has their order changed?"""
        if self.joint_names and sample.names != self.joint_names:
            same = set(sample.names) == set(self.joint_names)
            self.counts.add('joint_order_changes' if same else 'joint_set_changes')
        self.joint_names = sample.names

    def lines(self) -> list[str]:
        """In words, a line each; empty for a bag that has nothing odd. Read the bag first."""
        lines = list(self.losses)
        if self.missing_messages:
            lines.append(
                f'{self.path}: {self.missing_messages} of {sum(self.expected.values())} messages '
                'that metadata.yaml lists are not there.'
            )
        if not self.messages:
            lines.append(f'{self.path} holds no message of the topics that were asked for.')
        lines += [
            f'{self.path}: {self.counts[f"bad_{kind}"]} {kind} message(s) cannot be used: {why}'
            for kind, why in self.first_bad.items()
        ]
        lines += self._clock_lines()
        for name, what in (
            ('joint_order_changes', 'change the order of their joints'),
            ('joint_set_changes', 'change which joints they name'),
        ):
            if self.counts[name]:
                lines.append(f'{self.path}: joint states {what} {self.counts[name]} time(s).')
        if self.ignored:
            named = ', '.join(f'{t.topic} ({t.type})' for t in self.ignored)
            total = sum(t.count for t in self.ignored)
            lines.append(f'{self.path}: not used: {total or "some"} messages of {named}.')
        return lines

    def _clock_lines(self) -> list[str]:
        lines = []
        if self.clock.elsewhere:
            lines.append(
                f'{self.path}: stamps are of another clock than the recording in '
                f'{self.clock.elsewhere} message(s) (simulated time, or a clock set wrong): the '
                'stamps are used.'
            )
        if self.clock.log_backward:
            lines.append(
                f'{self.path}: the time of recording jumps back {self.clock.log_backward} time(s).'
            )
        for topic, seen in self.clock.topics.items():
            if seen.backward:
                lines.append(f'{self.path}: {topic}: stamps jump back {seen.backward} time(s).')
            if seen.gaps and topic in self.steady:
                lines.append(
                    f'{self.path}: {topic}: {seen.gaps} silence(s) of more than a second, the '
                    f'longest of {seen.longest_gap_ns / NS:.1f} s.'
                )
        return lines
