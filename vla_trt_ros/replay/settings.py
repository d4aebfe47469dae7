"""What a replay compares: bundles, precisions and step counts, each a setting with a name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import PlatformConfig
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.evaluation.precision_choice import at_precision, precision_label
from vla_trt_ros.policies.base import check_num_steps
from vla_trt_ros.policies.pi05.engines import read_config


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a policy. ``reference``: it is of the bundle that is compared against."""

    bundle: Bundle
    platform: PlatformConfig
    precision: str
    num_steps: int
    reference: bool = False
    tag: str = ''
    """Tells two bundles of one name apart."""

    @property
    def name(self) -> str:
        """For people, as 'nano fp32 10 steps'."""
        steps = f'{self.num_steps} step{"s" if self.num_steps > 1 else ""}'
        return f'{self.bundle.name}{self.tag} {self.precision} {steps}'

    @property
    def slug(self) -> str:
        """`name` as the name of a folder."""
        return re.sub(r'[^\w.+-]+', '-', self.name)


def all_settings(
    bundles: Sequence[Bundle],
    platform: PlatformConfig,
    precisions: Sequence[str],
    steps: Sequence[int],
) -> list[Setting]:
    """Every combination; those of one bundle and precision stand together, since they share a
    loaded policy. ``bundles`` behind the first are references. ConfigError: what a bundle lacks.
    """
    if not steps:
        raise ConfigError('--steps is empty: name a step count, such as 10.')
    doubled = len({b.name for b in bundles}) < len(bundles)
    settings = []
    for k, bundle in enumerate(bundles):
        for number in steps:
            check_num_steps(number, read_config(bundle).num_steps)
        tag = f'@{bundle.sha256[:8]}' if doubled else ''
        for precision in precisions or ['']:
            chosen = at_precision(platform, bundle, precision) if precision else platform
            label = precision or precision_label(platform)
            settings += [Setting(bundle, chosen, label, n, bool(k), tag) for n in steps]
    names = [s.name for s in settings]
    doubles = sorted({n for n in names if names.count(n) > 1})
    if doubles:
        raise ConfigError(f'{doubles[0]} is asked for twice; name each setting once.')
    return settings


def reference_of(setting: Setting, settings: Sequence[Setting]) -> Setting | None:
    """What ``setting`` is compared with: the same precision and steps of the other bundle where
    there is one, else the first setting; None for what is a reference itself.
    """
    if setting.reference:
        return None
    others = [s for s in settings if s.reference]
    if not others:
        return settings[0] if setting is not settings[0] else None
    return next(
        (
            s
            for s in others
            if (s.precision, s.num_steps) == (setting.precision, setting.num_steps)
        ),
        None,
    )
