"""A whole replay: checked, run part by part, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from vla_trt_ros.bags.reader import BagReader, open_bag
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import RobotConfig, find_file, load_platform, load_policy
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.evaluation.precision_choice import stages_of
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.loading import load_pipeline
from vla_trt_ros.pipeline import Pipeline
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.replay.columns import columns
from vla_trt_ros.replay.compare import Estimate, mean_estimate, paired_difference
from vla_trt_ros.replay.gates import Gate, check_gates, decide
from vla_trt_ros.replay.parts import PartResult, read_part
from vla_trt_ros.replay.report import Comparison, Report, SettingResult
from vla_trt_ros.replay.run import Manner, Watch, choose_source, run_part
from vla_trt_ros.replay.settings import Setting, all_settings, reference_of
from vla_trt_ros.replay.summary import metric_names, summarise

_COMPARED = ('mae_h1', 'mae_all', 'mse_all', 'gripper_agreement', 'seam', 'jerk')


@dataclass(frozen=True, slots=True)
class Request:
    """What is replayed, by what, and how. Names are those of files in config/ and bundles/."""

    bags: tuple[Path, ...]
    out: Path
    robot: RobotConfig
    policy: str = 'pi05'
    bundle: str = ''
    """'': the policy file's."""
    against: str = ''
    """A bundle to compare with; '': none."""
    platform: str = 'cpu'
    steps: tuple[int, ...] = (10,)
    precisions: tuple[str, ...] = ()
    """Empty: the platform's."""
    topics: tuple[tuple[str, str], ...] = ()
    """Role and topic, where it is not the robot file's."""
    clock: Literal['fast', 'real'] = 'fast'
    latency_ms: float | None = None
    """On the real clock; None: as measured."""
    through_node: bool = False
    seeds: range = range(1)
    tip: str = ''
    manner: Manner = field(default_factory=Manner)
    gates: tuple[Gate, ...] = ()


class NodeRunner(Protocol):
    """Runs a part through a policy node of its own; nodes/replay_part.py has it."""

    def __call__(
        self,
        bag: BagReader,
        request: Request,
        setting: Setting,
        folder: Path,
        conditions: dict[str, Any],
        *,
        watch: Watch,
    ) -> None:
        """As `run_part`."""
        ...


class Session:
    """Everything that can be known to be wrong is said when it is made (ConfigError).

    ``resume`` keeps the parts that are whole in ``request.out``; without it there must be none.
    """

    def __init__(self, request: Request, *, resume: bool = False) -> None:
        self.request = request
        policy = load_policy(request.policy)
        names = [request.bundle or policy.bundle, *([request.against] if request.against else [])]
        bundles = [open_bundle(find_file('bundles', name, '')) for name in names]
        for bundle in bundles:
            bundle.check_robot(request.robot)
        self.settings = all_settings(
            bundles, load_platform(request.platform), request.precisions, request.steps
        )
        self._deadline_ms = policy.deadline_ms
        known = columns(request.robot, read_config(bundles[0]).horizon)
        check_gates(request.gates, metric_names(known, real=self._real))
        self._bags = [
            open_bag([path], request.robot, dict(request.topics)) for path in request.bags
        ]
        for bag in self._bags:
            choose_source(bag, request.manner.source)
        self._results: dict[str, list[PartResult]] = {s.name: [] for s in self.settings}
        parts = request.out / 'parts'
        if not resume and parts.exists():
            raise ConfigError(
                f'{parts} holds the parts of another run: go on with --resume, name another '
                '--out, or delete it.'
            )

    @property
    def _real(self) -> bool:
        return self.request.clock == 'real'

    def run(
        self,
        watch: Callable[[Setting, BagReader], Watch] = lambda setting, bag: iter,
        through_node: NodeRunner | None = None,
    ) -> None:
        """Do every part that is not done; ``watch`` shows how far one is."""
        pipelines = _Pipelines(self.request)
        try:
            for setting, k, seed in self._order():
                bag = self._bags[k]
                folder, conditions = self._part(setting, k, seed)
                result = read_part(folder, conditions)
                if result is None:
                    seen = watch(setting, bag)
                    if through_node is not None:
                        through_node(bag, self.request, setting, folder, conditions, watch=seen)
                    else:
                        pipeline = pipelines.of(setting)
                        run_part(
                            bag, pipeline, self.request.manner, folder, conditions, watch=seen
                        )
                    result = read_part(folder, conditions)
                assert result is not None
                self._results[setting.name].append(result)
        finally:
            pipelines.close()

    def folders(self) -> list[tuple[str, Path]]:
        """Setting and folder of every part, in the order of the report."""
        return [(s.name, self._part(s, k, seed)[0]) for s, k, seed in self._order()]

    def report(self) -> Report:
        """What was found, after `run`."""
        results = [
            SettingResult(
                s.name,
                stages_of(s.platform),
                summarise(self._results[s.name], real=self._real, deadline_ms=self._deadline_ms),
                self._results[s.name],
                self._estimates(s),
            )
            for s in self.settings
        ]
        judged = {
            r.name: r.summary.metrics
            for s, r in zip(self.settings, results, strict=True)
            if not s.reference
        }
        return Report(
            facts=self._facts(results),
            joints=[(j.name, j.unit) for j in self.request.robot.joints],
            settings=results,
            comparisons=self._comparisons(),
            verdicts=decide(self.request.gates, judged),
            notes=self._notes(results),
            deadline_ms=self._deadline_ms,
        )

    def _order(self) -> Iterator[tuple[Setting, int, int]]:
        for setting in self.settings:
            for k in range(len(self._bags)):
                for seed in self.request.seeds:
                    yield setting, k, seed

    def _estimates(self, setting: Setting) -> list[Estimate]:
        found = (mean_estimate(self._results[setting.name], m) for m in ('mae_h1', 'mae_all'))
        return [e for e in found if e is not None]

    def _comparisons(self) -> list[Comparison]:
        metrics = (*_COMPARED, *(f'mae_all.{name}' for name in self.request.robot.joint_names))
        found = []
        for setting in self.settings:
            other = reference_of(setting, self.settings)
            if other is None:
                continue
            these, reference = self._results[setting.name], self._results[other.name]
            differences = (paired_difference(these, reference, metric) for metric in metrics)
            kept = [d for d in differences if d is not None]
            found.append(Comparison(setting.name, other.name, kept))
        return found

    def _facts(self, results: Sequence[SettingResult]) -> dict[str, str]:
        request, parts = self.request, [p for r in results for p in r.parts]
        clock: str = request.clock
        if self._real:
            took = 'as measured' if request.latency_ms is None else f'{request.latency_ms:g} ms'
            clock += f', inference {took}'
        seeds = request.seeds
        stages = (', '.join(f'{s} {how}' for s, how in r.stages.items()) for r in results)
        return {
            'bags': _listed(p.conditions['bag'] for p in parts),
            'robot': request.robot.name,
            'bundle': _listed(f'{s.bundle.name} {s.bundle.sha256[:12]}' for s in self.settings),
            'platform': f'{request.platform}: {_listed(stages, "; ")}',
            'hardware': cpu_name(),
            'clock': clock + (', through a node' if request.through_node else ''),
            'noise': f'seed {seeds[0]}' + (f' to {seeds[-1]}' if len(seeds) > 1 else ''),
            'done was': _listed(_SOURCE_WORDS[p.facts['source']] for p in parts),
        }

    def _notes(self, results: Sequence[SettingResult]) -> list[str]:
        notes = (note for r in results for part in r.parts for note in part.facts['notes'])
        return list(dict.fromkeys(notes))

    def _part(self, setting: Setting, k: int, seed: int) -> tuple[Path, dict[str, Any]]:
        """Folder and conditions of a part."""
        request = self.request
        names = [path.resolve().name for path in request.bags]
        name = names[k] if names.count(names[k]) == 1 else f'{names[k]} ({k + 1})'
        conditions = {
            'bag': name,
            'bag_bytes': sum(f.stat().st_size for f in _files(request.bags[k])),
            'topics': sorted(map(list, request.topics)),
            'robot': request.robot.name,
            'setting': setting.name,
            'bundle_sha256': setting.bundle.sha256,
            'stages': stages_of(setting.platform),
            'num_steps': setting.num_steps,
            'seed': seed,
            'clock': request.clock,
            'latency_ms': request.latency_ms,
            'through_node': request.through_node,
            'every': request.manner.every,
            'prompt': request.manner.prompt,
            'actions': request.manner.source,
            'tip': request.tip,
            'hardware': cpu_name(),
        }
        return request.out / 'parts' / f'{setting.slug}_bag{k}_seed{seed}', conditions


_SOURCE_WORDS = {
    'command': 'commands to the controller',
    'chunk': 'chunks of the policy that ran',
    'joints': 'where the joints went',
}


class _Pipelines:
    """One loaded policy at a time: step counts share it, precisions and bundles do not."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._key: tuple[str, str] | None = None
        self._pipeline: Pipeline | None = None

    def of(self, setting: Setting) -> Pipeline:
        key = (setting.bundle.sha256, setting.precision)
        if self._pipeline is None or self._key != key:
            self.close()
            self._pipeline = load_pipeline(
                robot=self._request.robot,
                platform=setting.platform,
                policy=self._request.policy,
                bundle=str(setting.bundle.path),
                num_steps=setting.num_steps,
            )
            self._key = key
        return self._pipeline

    def close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.policy.close()
            self._pipeline = None


def _listed(words: Any, separator: str = ', ') -> str:
    return separator.join(dict.fromkeys(map(str, words)))


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]
