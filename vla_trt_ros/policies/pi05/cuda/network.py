"""What the cuda_graph stages of one policy share: weights, tables, buffers, kernels, scratch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla_trt_ros.backends.torch_gpu import explained, gpu_target
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.policies.pi05.cuda.buffers import Buffers, buffers_for, prefix_rows
from vla_trt_ros.policies.pi05.cuda.fast_file import FastFile, open_fast_file
from vla_trt_ros.policies.pi05.cuda.fold import FastWeights
from vla_trt_ros.policies.pi05.cuda.operations import Ops, TorchOps
from vla_trt_ros.policies.pi05.cuda.quantize import with_unit_scales
from vla_trt_ros.policies.pi05.cuda.stages import Stages
from vla_trt_ros.policies.pi05.cuda.tables import StepTables
from vla_trt_ros.policies.pi05.spec import Pi05Config

TUNED_FOR = 'sm_90'
_FIELDS = {
    'vision': ('patch', 'position', 'vision', 'projector'),
    'prefix': ('embedding', 'prefix'),
    'denoise': ('expert', 'action_in', 'action_out'),
}
_MARGIN = 512 << 20
"""Bytes for compiled kernels, graphs and the libraries' own scratch."""

_log = logging.getLogger(__name__)


class Network:
    """Stages are added first, then `load` asks for memory in one go and loads their weights.

    Not thread-safe: one policy, one thread at a time.
    """

    def __init__(self, device: str = 'cuda') -> None:
        """BackendError where there is no such device, or torch cannot use it."""
        self.device = device
        self.target = _target(device)
        self.files: dict[str, FastFile] = {}
        self.tables: dict[int, StepTables] = {}
        self.pixels: Tensor | None = None
        """Where the caller writes pixels, if vision is one of the stages."""
        self.turns = 1
        """2: prefix and steps of two chunks overlap, each with keys and values of its own."""
        self._opened: dict[Path, FastFile] = {}
        self._stages: dict[tuple[int, int], Stages] = {}
        self._weights: FastWeights | None = None
        self._buffers: tuple[Buffers, ...] = ()
        self._ops: Ops | None = None
        self._pools: dict[int, Any] = {}
        self._stream: cuda.Stream | None = None

    def open(self, path: Path) -> FastFile:
        """The file at ``path``, whose header is read once. BackendError as `open_fast_file`."""
        if path not in self._opened:
            self._opened[path] = open_fast_file(path)
        return self._opened[path]

    def add(self, stage: str, file: FastFile) -> None:
        """Take ``stage`` from ``file``. BackendError if its network, dtype or GPU does not fit."""
        if self._weights is not None and stage not in self.files:
            raise BackendError(f'{stage} was added after the weights were loaded; load it before.')
        if file.precision == 'fp8' and self.target != 'cpu' and _number(self.target) < 89:
            raise BackendError(
                f'{stage}: fp8 needs a GPU of sm_89 or later, this one is {self.target}; choose '
                'bf16.'
            )
        for other in self.files.values():
            if replace(other.config, num_steps=(1,)) != replace(file.config, num_steps=(1,)):
                raise BackendError(
                    f'{file.tensors.path} and {other.tensors.path} are of different networks; '
                    'export the bundle again.'
                )
            if other.dtype != file.dtype:
                raise BackendError(
                    f'{stage} {file.precision} and {other.precision}: the cuda_graph stages of '
                    'one policy compute in one dtype; fp8 goes with bf16, fp32 with itself.'
                )
        self.files[stage] = file

    @property
    def config(self) -> Pi05Config:
        """Sizes of the network."""
        return next(iter(self.files.values())).config

    def allow_overlap(self) -> None:
        """Make keys and values twice. BackendError once weights are loaded."""
        if self._weights is not None:
            raise BackendError('overlap was asked for after the weights were loaded; ask before.')
        self.turns = 2

    def buffers(self, turn: int) -> Buffers:
        """Fixed memory of turn 0, or 1 where chunks overlap; `load` makes it."""
        return self._buffers[turn]

    @property
    def stream(self) -> cuda.Stream:
        """For runs of a stage alone."""
        if self._stream is None:
            self._stream = cuda.Stream()
        return self._stream

    def load(self) -> None:
        """Weights and buffers onto the device; a second call does nothing.

        BackendError if there is too little memory, before any of it is taken.
        """
        if self._weights is not None:
            return
        if self.device != 'cpu':
            self._check_memory()
        config, any_file = self.config, next(iter(self.files.values()))
        with explained('loading weights for cuda_graph'):
            weights = any_file.load((), self.device)
            for stage, file in self.files.items():
                loaded = file.load((stage,), self.device)
                weights = replace(weights, **{f: getattr(loaded, f) for f in _FIELDS[stage]})
            if 'denoise' in self.files:
                self.tables = self.files['denoise'].load_tables(self.device)
            self._ops, plain = self._choose_ops(weights)
            self._weights = weights if plain else with_unit_scales(weights)
            steps = max(self.tables, default=1)
            buffers = self._make_buffers(config, steps)
            if self.pixels is not None:
                buffers = replace(buffers, pixels=self.pixels)
            more = (buffers.beside() for _ in range(self.turns - 1))
            self._buffers = (buffers, *more)

    def stages(self, views: int, turn: int) -> Stages:
        """The stages with ``views`` views there, on the `buffers` of ``turn``."""
        found = self._stages.get((views, turn))
        if found is None:
            assert self._weights is not None
            assert self._ops is not None
            made = Stages(self._weights, self.buffers(turn), self._ops, views)
            found = self._stages[views, turn] = made
        return found

    @contextlib.contextmanager
    def work(self, stream: int | None) -> Iterator[None]:
        """What torch does inside the block is queued on ``stream``.

        While a graph is captured, its scratch memory comes from a pool that only graphs of that
        stream use: they run one at a time and may share it. What is made to stay is made in the
        run before, and must not be from that pool.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if stream is not None:
                stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(stream)))
                pool = self._pools.get(stream)
                if pool is None:
                    pool = self._pools[stream] = torch.cuda.MemPool()
                if cuda.is_capturing(stream):
                    stack.enter_context(torch.cuda.use_mem_pool(pool))
            yield

    def close(self) -> None:
        """Give memory back; a second call does nothing."""
        self._stages.clear()
        self.tables = {}
        self.pixels = None
        self._weights = self._ops = None
        self._buffers = ()
        self._pools.clear()
        if self.device != 'cpu':
            with contextlib.suppress(RuntimeError):  # a lost device
                torch.cuda.empty_cache()

    def needed_bytes(self) -> tuple[int, int]:
        """GPU memory that `load` and the runs after it take: weights, and all else."""
        weights = sum(file.part_bytes(stage) for stage, file in self.files.items())
        config, dtype = self.config, next(iter(self.files.values())).dtype
        with torch.device('meta'):
            held = self._make_buffers(config, max(config.num_steps), 'meta')
        parts = (held.pixels, held.hidden, held.latents, held.cos)
        parts += self.turns * (held.keys, held.values)
        rows = prefix_rows(config, len(config.views), config.max_prompt_tokens)
        scratch = 4 * rows * config.prefix.mlp * dtype.itemsize
        denoise = self.files.get('denoise')
        if denoise and denoise.precision == 'fp8' and self.target == TUNED_FOR:
            scratch += denoise.part_bytes('denoise')  # persistent.py packs the weights once more
        return weights, sum(t.nbytes for t in parts) + scratch + _MARGIN

    def _make_buffers(self, config: Pi05Config, steps: int, device: str | None = None) -> Buffers:
        dtype = next(iter(self.files.values())).dtype
        views, bucket = len(config.views), config.max_prompt_tokens
        return buffers_for(config, views, bucket, steps, dtype, device or self.device)

    def _check_memory(self) -> None:
        weights, rest = self.needed_bytes()
        free, total = cuda.memory()
        if weights + rest > free:
            raise BackendError(
                f'cuda_graph needs {(weights + rest) / 1e9:.2f} GB of GPU memory '
                f'({weights / 1e9:.2f} weights, {rest / 1e9:.2f} buffers and scratch), '
                f'{free / 1e9:.2f} of {total / 1e9:.2f} GB are free: close what else runs on the '
                'GPU, or choose a smaller precision.'
            )

    def _choose_ops(self, weights: FastWeights) -> tuple[Ops, bool]:
        """The operations, and whether they are the plain ones."""
        if self.device == 'cpu':
            return TorchOps(), True
        why = self._not_tuned()
        if why:
            _log.warning('cuda_graph runs plain PyTorch operations, which are slower: %s', why)
            return TorchOps(), True
        from vla_trt_ros.policies.pi05.cuda.triton_ops import TritonOps
        from vla_trt_ros.policies.pi05.cuda.tuning import tuning_for

        horizon = self.config.horizon
        quantized = weights.expert[0].qkv.quantized
        return TritonOps(tuning_for(quantized, horizon), horizon), False

    def _not_tuned(self) -> str:
        if self.target != TUNED_FOR:
            return f'the kernels are tuned for {TUNED_FOR}, this GPU is {self.target}'
        if next(iter(self.files.values())).dtype != torch.bfloat16:
            return 'the kernels compute in bf16 and fp8, the bundle is fp32'
        try:
            from vla_trt_ros.policies.pi05.cuda.triton_ops import TritonOps
        except ImportError as error:
            raise BackendError(
                f"cuda_graph needs Triton ({error}), which comes with torch's builds for CUDA: "
                "pip install 'vla_trt_ros[cuda-graph]'."
            ) from error
        return TritonOps.serves(self.config)


def _target(device: str) -> str:
    if device == 'cpu':
        return 'cpu'
    target = gpu_target()
    if _number(target) < 80:
        raise BackendError(
            f'cuda_graph needs a GPU of sm_80 or later, this one is {target}; choose a platform '
            'that does not name cuda_graph.'
        )
    return target


def _number(target: str) -> int:
    return int(target.removeprefix('sm_'))
