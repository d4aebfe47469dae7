"""Captured CUDA graphs of the stages: one per prompt bucket and number of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vla_trt_ros.errors import BackendError
from vla_trt_ros.policies.pi05.cuda.stages import Stages
from vla_trt_ros.policies.pi05.cuda.tables import StepTables

_WARM_UPS = 2


class Graphs:
    """Pixels to actions in one launch. Between replays only the choice of graph changes.

    All graphs share the stages' weights and buffers and one memory pool: replay one at a time,
    on one stream.
    """

    def __init__(self, stages: Stages, tables: Mapping[int, StepTables]) -> None:
        self.stages, self.tables = stages, dict(tables)
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: list[torch.cuda.CUDAGraph] = []  # the pool lives while one of them does

    def capture_all(self, buckets: tuple[int, ...]) -> None:
        """A graph for every bucket and every number of steps that has tables."""
        for bucket in buckets:
            for steps in self.tables:
                self._graphs[bucket, steps] = self.capture(lambda: self.run(bucket, steps))  # noqa: B023 - called at once

    def run(self, bucket: int, steps: int) -> Tensor:
        """All stages, launch by launch. Returns the actions: a view, [H, A]."""
        self.stages.vision()
        self.stages.prefix(bucket)
        return self.stages.denoise(self.tables[steps])

    def replay(self, bucket: int, steps: int) -> Tensor:
        """Enqueues one graph on the current stream. The result is valid until the next replay."""
        graph = self._graphs.get((bucket, steps))
        if graph is None:
            raise BackendError(
                f'no graph for {bucket} prompt tokens and {steps} steps; captured: '
                f'{sorted(self._graphs)}. Add it to prompt_buckets or num_steps of the bundle.'
            )
        graph.replay()
        return self.stages.buffers.latents[steps, : self.stages.weights.config.horizon]

    def capture(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """``work`` as a graph, after a run that compiles its kernels."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph, pool=self._pool):
            work()
        self._captured.append(graph)
        return graph
