"""The cuda_graph backend: stages of hand-tuned kernels that a CUDA graph captures.

Between two stages of this backend nothing is copied and nothing has spec.py's layout; to and from
a stage of another backend, tensors go through the GPU memory of spec.py's arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import cast

import ml_dtypes  # noqa: F401  NumPy learns 'bfloat16' from it
import torch
from torch import Tensor

from vla_trt_ros.backends.base import Array, Buffers, EngineSource, allocate, bind
from vla_trt_ros.backends.gpu_engine import GpuEngine
from vla_trt_ros.backends.torch_gpu import as_tensor, explained
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.cuda import pinned
from vla_trt_ros.gpu.mirror import Mirror, mirrors_of
from vla_trt_ros.policies.pi05.cuda.buffers import Buffers as DeviceBuffers
from vla_trt_ros.policies.pi05.cuda.engine_check import check_engine
from vla_trt_ros.policies.pi05.cuda.network import Network

_BETWEEN = {'image_tokens': ('vision', 'prefix'), 'keys': ('prefix', 'denoise')}
_BETWEEN['values'] = _BETWEEN['keys']
"""Tensors that one stage hands on to another."""


class CudaGraphEngine(GpuEngine):
    """One stage, on the `Network` that it shares with the others of its policy."""

    def __init__(self, source: EngineSource, buffers: Buffers, device: str = 'cuda') -> None:
        self.name, self.stage = source.name, source.stage
        self._bucket, self._steps = source.prompt_bucket, source.num_steps
        if source.file is None:
            raise BackendError(f'{source.name}: the bundle names no file; export it again.')
        self._network = _shared_network(source, device)
        file = self._network.open(source.file)
        check_engine(source, file)
        self._network.add(self.stage, file)
        self._specs = source.inputs, source.outputs
        self._bind(buffers)
        self._views: int | None = None
        self._turn = 0
        self._closed = False
        if self.stage == 'vision':
            self._network.pixels = self._tensor('pixels')

    def _bind(self, buffers: Buffers) -> None:
        inputs, outputs = self._specs
        self._inputs = bind(inputs, buffers, self._allocate)
        self._outputs = bind(outputs, buffers, self._allocate)
        self._exchanged: dict[str, Mirror] | None = None
        self._tensors: dict[str, Tensor] = {}

    @property
    def mirrors(self) -> Mapping[str, Mirror]:
        """GPU memory of what is exchanged with the caller or another backend's stages. To be
        asked for when all stages of the policy are there.
        """
        if self._exchanged is None:
            inputs, outputs = (
                {name: array for name, array in arrays.items() if self._outside(name)}
                for arrays in (self._inputs, self._outputs)
            )
            self._exchanged = mirrors_of(inputs, outputs)
        return self._exchanged

    @property
    def on_gpu(self) -> bool:
        """Unless it was made by `on_cpu`."""
        return self._network.device != 'cpu'

    @property
    def compacts(self) -> bool:
        """Missing views are left out."""
        return True

    def for_views(self, views: int) -> CudaGraphEngine:
        """The stage for calls in which the first ``views`` views are there."""
        if not 1 <= views <= len(self._network.config.views):
            raise BackendError(
                f'{self.name}: {views} views of {len(self._network.config.views)}; one at least.'
            )
        twin = copy(self)
        twin._views = views
        return twin

    def beside(self, buffers: Buffers) -> CudaGraphEngine:
        """The stage once more, for chunks that overlap those of this one: the same weights; keys,
        values and host arrays of its own, but for those in ``buffers``, which gets the others.

        BackendError once weights are loaded.
        """
        self._network.allow_overlap()
        twin = copy(self)
        twin._turn = 1
        twin._bind(buffers)
        return twin

    def enqueue(self, *, stream: int | None = None) -> None:
        """Copy in, run once, copy out and wait; or queue the stage alone on ``stream``."""
        if self._closed:
            raise BackendError(f'{self.name}: the engine is closed; load it again.')
        self._network.load()
        if self._network.device == 'cpu':
            if stream is not None:
                raise BackendError(f'{self.name}: runs on the CPU, which has no stream {stream}.')
            self._queue(None, self._there())
        elif stream is not None:
            self._queue(stream, self._views or len(self._network.config.views))
        else:
            views = self._there()
            self._run_alone(self._network.stream, lambda handle: self._queue(handle, views))

    def _there(self) -> int:
        """Views that the mask on the host says are there."""
        config, mask = self._network.config, self._inputs.get('prefix_mask')
        if self._views is not None or mask is None:
            return self._views or len(config.views)
        per_view = mask[0, : config.image_tokens].reshape(len(config.views), -1)
        count = int(per_view[:, 0].sum())
        if not (count and per_view[:count].all()) or per_view[count:].any():
            raise BackendError(
                f'{self.name}: prefix_mask has views {per_view[:, 0].tolist()}; those that are '
                'there must come first, whole, and be one at least.'
            )
        return count

    def _queue(self, stream: int | None, views: int) -> None:
        run: Callable[[int], None] = getattr(self, f'_{self.stage}')
        with explained(self.name), self._network.work(stream):
            run(views)

    def _vision(self, views: int) -> None:
        network = self._network
        network.stages(views, self._turn).vision()
        if self._outside('image_tokens'):
            count = views * network.config.tokens_per_view
            self._tensor('image_tokens')[0, :count] = self._buffers.hidden[:count]

    def _prefix(self, views: int) -> None:
        network, bucket = self._network, cast(int, self._bucket)
        buffers, images = self._buffers, views * network.config.tokens_per_view
        if self._outside('image_tokens'):
            buffers.hidden[:images] = self._tensor('image_tokens')[0, :images]
        buffers.tokens[:bucket] = self._tensor('tokens')[0]
        self._count_valid()
        network.stages(views, self._turn).prefix(bucket)
        if self._outside('keys'):
            for inner, outer in self._caches(images):
                outer.copy_(inner)

    def _denoise(self, views: int) -> None:
        network, steps = self._network, cast(int, self._steps)
        buffers, horizon = self._buffers, network.config.horizon
        if self._outside('keys'):
            self._count_valid()
            for inner, outer in self._caches(views * network.config.tokens_per_view):
                inner.copy_(outer)
        buffers.latents[0, :horizon] = self._tensor('noise')[0]
        actions = network.stages(views, self._turn).denoise(network.tables[steps], self._bucket)
        self._tensor('actions')[0] = actions

    @property
    def _buffers(self) -> DeviceBuffers:
        return self._network.buffers(self._turn)

    def _count_valid(self) -> None:
        mask = self._tensor('prefix_mask')
        torch.sum(mask, dim=1, dtype=torch.int32, out=self._buffers.valid)

    def _caches(self, images: int) -> list[tuple[Tensor, Tensor]]:
        """Parts of our keys and values, and where they are in spec.py's: there the prompt stands
        behind all views, here right behind those that are there.
        """
        config, bucket = self._network.config, cast(int, self._bucket)
        buffers, pairs = self._buffers, []
        for name, inner in (('keys', buffers.keys), ('values', buffers.values)):
            outer = self._tensor(name)[:, 0, 0]
            if images == config.image_tokens:
                count = images + bucket
                pairs.append((inner[:, :count], outer[:, :count]))
                continue
            pairs.append((inner[:, :images], outer[:, :images]))
            pairs.append((inner[:, images : images + bucket], outer[:, config.image_tokens :]))
        return pairs

    def _outside(self, name: str) -> bool:
        """Whether the caller or another backend is at the other end of tensor ``name``."""
        stages = self._network.files
        if name == 'prefix_mask':
            return self.stage == 'prefix' or 'prefix' not in stages
        return not all(stage in stages for stage in _BETWEEN.get(name, ('',)))

    def _tensor(self, name: str) -> Tensor:
        found = self._tensors.get(name)
        if found is None:
            array = self._inputs.get(name, self._outputs.get(name))
            assert array is not None
            found = self._tensors[name] = as_tensor(array, self._network.device)
        return found

    def _allocate(self, spec: TensorSpec) -> Array:
        if self._network.device == 'cpu' or spec.name in _BETWEEN:
            return allocate(spec)  # pages that are never touched, if it stays inside
        return pinned(spec.shape, spec.dtype)

    def close(self) -> None:
        """Refuse further runs; a second call does nothing. The network goes with its policy."""
        if not self._closed:
            self._closed = True
            self._tensors, self._exchanged = {}, {}


def on_cpu(source: EngineSource, buffers: Buffers) -> CudaGraphEngine:
    """The engine in plain PyTorch without a GPU: for tests, and to look at the stages."""
    return CudaGraphEngine(source, buffers, 'cpu')


def _shared_network(source: EngineSource, device: str) -> Network:
    found = source.shared.get('cuda_graph')
    if not isinstance(found, Network):
        found = source.shared['cuda_graph'] = Network(device)
    return found
