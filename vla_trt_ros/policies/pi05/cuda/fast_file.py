"""What a bundle holds for the cuda_graph backend: fast.<precision>.safetensors.

All that the stages read, ready to load: folded and quantised weights, the scales, and the tables
of every number of steps. A stage's part can be loaded alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from vla_trt_ros.errors import BackendError, ConfigError
from vla_trt_ros.policies.pi05.cuda.fold import FastWeights, GemmaLayer, Linear, VisionLayer
from vla_trt_ros.policies.pi05.cuda.tables import StepTables
from vla_trt_ros.policies.pi05.cuda.tensor_file import TensorFile, write_tensors
from vla_trt_ros.policies.pi05.spec import Pi05Config
from vla_trt_ros.strict_yaml import build

FORMAT = '2'
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp8': torch.bfloat16}
"""Precision to the dtype of what is not quantised."""
PARTS = {
    'vision': ('patch.', 'position', 'vision.', 'projector.'),
    'prefix': ('embedding', 'prefix.'),
    'denoise': ('expert.', 'action_', 'steps.'),
}
"""Stage to how the names of its tensors begin."""


def file_name(precision: str) -> str:
    """Of the file in a bundle."""
    return f'fast.{precision}.safetensors'


def write_fast_file(
    path: Path,
    weights: FastWeights,
    tables: Mapping[int, StepTables],
    precision: str,
    calibrated_with: str = '',
    progress: Iterable[object] = (),
) -> None:
    """Write ``weights`` (quantised, for fp8) and ``tables`` to ``path``, a tensor at a time.

    ``progress`` is moved on by one for each.
    """
    metadata = {
        'format': FORMAT,
        'family': 'pi05',
        'precision': precision,
        'config': json.dumps(asdict(weights.config)),
        'num_steps': json.dumps(sorted(tables)),
        'calibrated_with': calibrated_with,
    }
    steps = iter(progress)

    def counted() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in named_tensors(weights, tables):
            next(steps, None)
            yield name, tensor
        for _ in steps:
            pass

    write_tensors(path, metadata, counted())


def named_tensors(
    weights: FastWeights, tables: Mapping[int, StepTables]
) -> Iterator[tuple[str, Tensor]]:
    """What is written, in that order."""
    yield 'position', weights.position
    yield 'embedding', weights.embedding
    for linear in (*weights.linears(), weights.patch, weights.action_in, weights.action_out):
        yield f'{linear.name}.weight', linear.weight
        for part in ('bias', 'scale', 'act_scale'):
            tensor = getattr(linear, part)
            if tensor is not None:
                yield f'{linear.name}.{part}', tensor
        if linear.quantized:
            yield f'{linear.name}.quanta', torch.tensor([linear.act, linear.result])
    for count, table in sorted(tables.items()):
        for part in StepTables.__dataclass_fields__:
            yield f'steps.{count}.{part}', getattr(table, part)


@dataclass(frozen=True, slots=True)
class FastFile:
    """An opened file; nothing of it is loaded."""

    tensors: TensorFile
    config: Pi05Config
    precision: str
    num_steps: tuple[int, ...]
    calibrated_with: str

    @property
    def dtype(self) -> torch.dtype:
        """Of what is not quantised."""
        return PRECISIONS[self.precision]

    def part_bytes(self, stage: str) -> int:
        """Bytes that `load` puts on the device for ``stage``."""
        return self.tensors.bytes_of(PARTS[stage])

    def load(self, stages: Iterable[str], device: str) -> FastWeights:
        """The weights of ``stages``; those of others are empty."""
        wanted, config, tensors = set(stages), self.config, self.tensors
        nothing = torch.empty(0, 0, dtype=self.dtype, device=device)

        def one(stage: str, name: str) -> Tensor:
            return tensors.load(name, device) if stage in wanted else nothing

        def linear(stage: str, name: str) -> Linear:
            return self._linear(name, device) if stage in wanted else Linear(name, nothing)

        def gemma(stage: str, i: int, last: bool = False) -> GemmaLayer:
            parts = ('qkv',) if last else ('qkv', 'out', 'gate_up', 'down')
            return GemmaLayer(**{p: linear(stage, f'{stage}.{i}.{p}') for p in parts})

        def expert(i: int) -> GemmaLayer:
            parts = ('qkv', 'out', 'gate_up', 'down')
            return GemmaLayer(**{p: linear('denoise', f'expert.{i}.{p}') for p in parts})

        def vision(i: int) -> VisionLayer:
            parts = ('qkv', 'out', 'fc1', 'fc2')
            return VisionLayer(*(linear('vision', f'vision.{i}.{p}') for p in parts))

        depth = config.depth
        return FastWeights(
            config=config,
            patch=linear('vision', 'patch'),
            position=one('vision', 'position'),
            vision=tuple(vision(i) for i in range(config.vision.depth)),
            projector=linear('vision', 'projector'),
            embedding=one('prefix', 'embedding'),
            prefix=tuple(gemma('prefix', i, i == depth - 1) for i in range(depth)),
            expert=tuple(expert(i) for i in range(depth)),
            action_in=linear('denoise', 'action_in'),
            action_out=linear('denoise', 'action_out'),
        )

    def load_tables(self, device: str) -> dict[int, StepTables]:
        """Tables of every number of steps."""
        parts = StepTables.__dataclass_fields__
        return {
            n: StepTables(*(self.tensors.load(f'steps.{n}.{p}', device) for p in parts))
            for n in self.num_steps
        }

    def _linear(self, name: str, device: str) -> Linear:
        def maybe(part: str) -> Tensor | None:
            key = f'{name}.{part}'
            return self.tensors.load(key, device) if key in self.tensors else None

        weight = self.tensors.load(f'{name}.weight', device)
        linear = Linear(name, weight, maybe('bias'), maybe('scale'))
        if not linear.quantized:
            return linear
        act, result = self.tensors.load(f'{name}.quanta').tolist()
        return Linear(name, weight, linear.bias, linear.scale, act, maybe('act_scale'), result)


def open_fast_file(path: Path) -> FastFile:
    """BackendError if the file is missing, truncated, of another version, or none of ours."""
    if not path.is_file():
        raise BackendError(
            f'{path} does not exist; export the bundle again with --backend cuda_graph.'
        )
    tensors = TensorFile(path)
    found = tensors.metadata
    version = found.get('format')
    if version != FORMAT:
        raise BackendError(
            f'{path} is of format {version!r}, this release reads {FORMAT!r}; export the bundle '
            'again with this release.'
        )
    try:
        config = build(Pi05Config, json.loads(found['config']), str(path))
        steps = tuple(json.loads(found['num_steps']))
        precision = found['precision']
        assert precision in PRECISIONS, f'precision {precision!r}'
    except (KeyError, ValueError, TypeError, AssertionError, ConfigError) as error:
        raise BackendError(
            f'{path}: its header cannot be used ({error}); export the bundle again.'
        ) from error
    return FastFile(tensors, config, precision, steps, found.get('calibrated_with', ''))
