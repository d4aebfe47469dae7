"""Whether a file for cuda_graph is what the manifest says of an engine."""

from __future__ import annotations

import torch

from vla_trt_ros.backends.base import EngineSource
from vla_trt_ros.errors import BackendError
from vla_trt_ros.policies.pi05.cuda.fast_file import FastFile
from vla_trt_ros.policies.pi05.spec import (
    Pi05Config,
    StageSpec,
    denoise_spec,
    prefix_spec,
    vision_spec,
)

_ACTIVATIONS = {torch.float32: 'float32', torch.bfloat16: 'bfloat16'}


def check_engine(source: EngineSource, file: FastFile) -> None:
    """BackendError unless ``file`` has the precision, tensors and step count of ``source``."""
    if file.precision != source.precision:
        raise BackendError(
            f'{source.name}: {file.tensors.path} is {file.precision}, the manifest says '
            f'{source.precision}; export the bundle again.'
        )
    wanted = _spec(source, file.config, _ACTIVATIONS[file.dtype])
    if wanted != StageSpec(source.inputs, source.outputs):
        raise BackendError(
            f'{source.name}: {file.tensors.path} is of another network than the manifest: its '
            f'tensors are {[(t.name, list(t.shape), t.dtype) for t in wanted.inputs]}; export the '
            'bundle again.'
        )
    if source.num_steps is not None and source.num_steps not in file.num_steps:
        raise BackendError(
            f'{source.name}: {file.tensors.path} has tables for {list(file.num_steps)} steps; '
            f'export the bundle again with --steps {source.num_steps}.'
        )
    if file.config.prefix.kv_heads != 1:
        raise BackendError(
            f'{source.name}: cuda_graph serves one key-value head, this network has '
            f'{file.config.prefix.kv_heads}; choose onnxruntime or tensorrt.'
        )


def _spec(source: EngineSource, config: Pi05Config, activation: str) -> StageSpec:
    if source.stage == 'vision':
        return vision_spec(config, activation)
    bucket = source.prompt_bucket or 0
    if source.stage == 'prefix':
        return prefix_spec(config, bucket, activation)
    return denoise_spec(config, bucket, activation)
