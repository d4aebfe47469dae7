"""Each precision against float32: stage by stage on the same inputs, and the whole policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.backends.base import Array
from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import STAGES, Precision
from vla_trt_ros.errors import BackendError, BundleError, ConfigError
from vla_trt_ros.export.evaluate import Graph, load_graph
from vla_trt_ros.export.graphs import GraphKey, graphs_of
from vla_trt_ros.export.precision import PRECISIONS, precision_row
from vla_trt_ros.export.quantize.bundle import quantize_bundle
from vla_trt_ros.export.quantize.ranges import Ranges

Inputs = dict[str, Array]
Report = Callable[[str], None]
_OUTPUTS = {'vision': ('image_tokens',), 'prefix': ('keys', 'values'), 'denoise': ('actions',)}


@dataclass(frozen=True, slots=True)
class Score:
    """One line of the report. Cosines are over all numbers that a frame gives, and for actions
    over the robot's columns, normalised.
    """

    precision: str
    part: str
    """A stage, fed by the float32 stages before it, or 'policy': all stages at this precision."""
    steps: int | None
    """Denoise steps; None for vision and prefix."""
    cosine: float
    """Mean over the frames."""
    worst: float
    """Smallest cosine of a frame."""
    worst_frame: int
    max_abs: float
    sign_flips: int
    """Rows of all chunks whose gripper changes sign; 0 where no gripper was named."""
    note: str = ''


class Chains:
    """Graphs of a bundle by precision. What the bundle lacks is made in ``folder``."""

    def __init__(
        self,
        bundle: Bundle,
        folder: Path,
        ranges: Mapping[str, Ranges] | None,
        steps: Sequence[int],
    ) -> None:
        self._bundle, self._folder, self._ranges = bundle, folder, ranges
        self._steps = steps
        self._paths: dict[tuple[str, str], dict[GraphKey, Path]] = {}
        self._graphs: dict[Path, Graph] = {}
        self.made: set[str] = set()
        """Precisions that were made here."""

    def graph(self, stage: str, precision: str, key: GraphKey) -> Graph:
        """One graph, loaded once. BundleError if there is none for ``key``."""
        paths = self._paths.get((stage, precision))
        if paths is None:
            paths = self._paths[stage, precision] = self._find(stage, precision)
        if key not in paths:
            raise BundleError(
                f'bundle {self._bundle.name!r} holds no {precision} {stage} for prompt bucket and '
                f'steps {key}; it has {sorted(paths, key=str)}.'
            )
        if paths[key] not in self._graphs:
            self._graphs[paths[key]] = load_graph(paths[key])
        return self._graphs[paths[key]]

    def forget(self) -> None:
        """Free the graphs that are loaded."""
        self._graphs.clear()

    def _find(self, stage: str, precision: str) -> dict[GraphKey, Path]:
        held = graphs_of(self._bundle, stage, precision)
        if held:
            return held
        self.made.add(precision)
        name: Precision = precision  # type: ignore[assignment]
        new = quantize_bundle(
            self._bundle,
            [name],
            self._folder,
            ranges=self._ranges,
            stages=[stage],
            keys=lambda _, key: key[1] is None or key[1] in self._steps,
        )
        return {(s.prompt_bucket, s.num_steps): self._folder / s.file for s in new.sources}


def judge(
    chains: Chains,
    inputs: Sequence[Inputs],
    precisions: Sequence[str],
    steps: Sequence[int],
    *,
    columns: int,
    gripper: int | None = None,
    report: Report = lambda text: None,
) -> list[Score]:
    """Scores of ``precisions`` over ``inputs`` (graphs.network_inputs of part B).

    ``columns``: the robot's action columns. ``gripper``: which of them is watched for flips.
    """
    references = [_reference(chains, tensors, steps) for tensors in inputs]
    chains.forget()
    scores: list[Score] = []
    for precision in precisions:
        tallies: dict[tuple[str, int | None], _Tally] = {}
        for i, (tensors, reference) in enumerate(zip(inputs, references, strict=True)):
            report(f'{precision}: frame {i + 1} of {len(inputs)}')
            for part, count, found in _runs(chains, precision, tensors, reference, steps):
                wanted = reference['actions', count] if count else reference[part, None]
                tally = tallies.setdefault((part, count), _Tally(columns, gripper))
                tally.add(found, wanted, precision, part)
        note = _note(precision)
        scores += [
            tally.score(precision, part, count, note if part == 'policy' else '')
            for (part, count), tally in tallies.items()
        ]
        chains.forget()
    order = (*STAGES, 'policy')
    return sorted(
        scores, key=lambda s: (precisions.index(s.precision), order.index(s.part), s.steps or 0)
    )


Reference = dict[tuple[str, int | None], Inputs]


def _reference(chains: Chains, tensors: Inputs, steps: Sequence[int]) -> Reference:
    bucket = tensors['tokens'].shape[1]
    vision = chains.graph('vision', 'fp32', (None, None)).run(tensors)
    prefix = chains.graph('prefix', 'fp32', (bucket, None)).run({**tensors, **vision})
    found: Reference = {('vision', None): vision, ('prefix', None): prefix}
    for n in steps:
        found['actions', n] = chains.graph('denoise', 'fp32', (bucket, n)).run(
            {**tensors, **prefix}
        )
    return found


def _runs(
    chains: Chains, precision: str, tensors: Inputs, reference: Reference, steps: Sequence[int]
) -> Iterator[tuple[str, int | None, Inputs]]:
    """(part, steps, outputs) of every stage alone and of the chain."""
    refused = precision_row(precision).refused
    chosen = {stage: 'bf16' if stage in refused else precision for stage in STAGES}
    bucket = tensors['tokens'].shape[1]
    exact = {**tensors, **reference['vision', None], **reference['prefix', None]}
    vision = chains.graph('vision', chosen['vision'], (None, None)).run(tensors)
    prefix_graph = chains.graph('prefix', chosen['prefix'], (bucket, None))
    if 'vision' not in refused:
        yield 'vision', None, vision
    if 'prefix' not in refused:
        yield 'prefix', None, prefix_graph.run(exact)
    own = {**tensors, **prefix_graph.run({**tensors, **vision})}
    for n in steps:
        graph = chains.graph('denoise', chosen['denoise'], (bucket, n))
        if 'denoise' not in refused:
            yield 'denoise', n, graph.run(exact)
        yield 'policy', n, graph.run(own)


def _note(precision: str) -> str:
    refused = precision_row(precision).refused
    return f'{", ".join(refused)} in bf16' if refused else ''


class _Tally:
    def __init__(self, columns: int, gripper: int | None) -> None:
        self._columns, self._gripper = columns, gripper
        self._cosines: list[float] = []
        self._max_abs, self._flips = 0.0, 0

    def add(self, found: Inputs, wanted: Inputs, precision: str, part: str) -> None:
        names = sorted(wanted)
        cut = self._columns if names == ['actions'] else None
        a, b = (
            np.concatenate([np.asarray(x[n], np.float64)[..., :cut].ravel() for n in names])
            for x in (found, wanted)
        )
        if not np.isfinite(a).all():
            raise BackendError(
                f'{part} {precision} gave NaN or Inf: the precision does not hold this network; '
                'choose another for the stage.'
            )
        self._cosines.append(cosine(a, b))
        self._max_abs = max(self._max_abs, float(np.abs(a - b).max()))
        if cut and self._gripper is not None:
            signs = [
                np.asarray(x['actions'], np.float64)[..., self._gripper] > 0
                for x in (found, wanted)
            ]
            self._flips += int((signs[0] != signs[1]).sum())

    def score(self, precision: str, part: str, steps: int | None, note: str) -> Score:
        worst = int(np.argmin(self._cosines))
        return Score(
            precision,
            part,
            steps,
            float(np.mean(self._cosines)),
            self._cosines[worst],
            worst,
            self._max_abs,
            self._flips,
            note,
        )


def cosine(a: Array, b: Array) -> float:
    """Of two vectors; 1 where both are zero, 0 where one is."""
    lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not all(lengths):
        return float(lengths[0] == lengths[1])
    return float(a @ b / (lengths[0] * lengths[1]))


def gripper_column(bundle: Bundle, joint: str = '') -> int | None:
    """Column of action ``joint``, or of the one joint that is named for a gripper; None where
    there is none or several. ConfigError if ``joint`` is no action.
    """
    names = [column.joint for column in bundle.layout.actions]
    if joint:
        if joint not in names:
            raise ConfigError(f'--gripper {joint!r} is none of {", ".join(names)}.')
        return names.index(joint)
    found = [i for i, name in enumerate(names) if 'grip' in name or 'finger' in name]
    return found[0] if len(found) == 1 else None


def parse_gates(text: str, precisions: Sequence[str]) -> dict[str, float]:
    """'0.999', or 'bf16=0.999,fp8=0.99': smallest mean cosine of the policy per precision."""
    gates: dict[str, float] = {}
    for word in filter(None, text.split(',')):
        name, _, number = word.rpartition('=')
        try:
            value = float(number)
            assert -1.0 <= value <= 1.0
        except (ValueError, AssertionError):
            raise ConfigError(
                f'--gate {word!r}: write a cosine such as 0.999, or bf16=0.999,fp8=0.99.'
            ) from None
        if name and name not in PRECISIONS:
            precision_row(name)
        gates |= {name: value} if name else dict.fromkeys(precisions, value)
    return gates


def failures(scores: Sequence[Score], gates: Mapping[str, float]) -> list[str]:
    """What is below its gate, in words; a precision that has no gate passes."""
    return [
        f'{s.precision} at {s.steps} steps: cosine {s.cosine:.5f} is below the gate '
        f'{gates[s.precision]}'
        for s in scores
        if s.part == 'policy' and s.precision in gates and s.cosine < gates[s.precision]
    ]


def as_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Rows for a file, rounded to what repeats."""
    rows = []
    for score in scores:
        row = asdict(score)
        for name in ('cosine', 'worst', 'max_abs'):
            row[name] = round(row[name], 6)
        rows.append({key: value for key, value in row.items() if value not in (None, '')})
    return rows
