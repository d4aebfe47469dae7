"""Which GPUs an installed TensorRT can build for, and which of them builds for a given one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla_trt_ros.backends.tensorrt import platform_of
from vla_trt_ros.backends.trt_module import Flavour, TensorRT, find_tensorrt, installed
from vla_trt_ros.config import targets
from vla_trt_ros.errors import BackendError, ConfigError
from vla_trt_ros.gpu.cuda import device_target


def local_target() -> str | None:
    """The GPU of this machine as 'sm_120', None where there is none."""
    try:
        return device_target()
    except BackendError:
        return None


def buildable(trt: TensorRT, local: str | None) -> tuple[str, ...]:
    """GPUs that ``trt`` builds for on a machine whose own GPU is ``local``.

    TensorRT-RTX compiles ahead for those that it lists, with no GPU at hand; the full library
    times kernels on the GPU it runs on, so it builds for that one alone.
    """
    listed = getattr(trt.module, 'ComputeCapability', None)
    if listed is None:
        return (local,) if local else ()
    return tuple(t for t in targets() if hasattr(listed, t.replace('sm_', 'SM')))


def choose_builder(
    target: str, bundle: Path, flavour: Flavour | None, local: str | None
) -> TensorRT:
    """An installed TensorRT that builds for ``target``.

    ConfigError for 'cpu'; BackendError says what to install, or to run the command on the device.
    """
    if target == 'cpu':
        raise ConfigError('platform cpu runs ONNX files as they are: there is nothing to build.')
    if flavour:
        candidates: tuple[TensorRT, ...] = (find_tensorrt(flavour),)
    else:
        candidates = installed() or (find_tensorrt(),)
    for trt in candidates:
        if target in buildable(trt, local):
            return trt
    able = '; '.join(
        f'{trt.title} builds for {", ".join(buildable(trt, local)) or "the GPU it runs on"}'
        for trt in candidates
    )
    here = f'the GPU here is {local}' if local else 'there is no GPU here'
    raise BackendError(
        f'{target} cannot be targeted from this machine ({here}; {able}). Copy the bundle to the '
        f'device and run it there: vla-trt build --bundle {bundle} --platform '
        f'{platform_of(target)}.'
    )


def set_target(module: Any, config: Any, target: str) -> None:
    """Tell ``config`` what to build for, where the library lets one choose.

    Left open, TensorRT-RTX builds for many GPUs and drops, without a word, those that lack a
    datatype; named, such a GPU is an error.
    """
    listed = getattr(module, 'ComputeCapability', None)
    if listed is None:
        return
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(listed, target.replace('sm_', 'SM')), 0):
        raise BackendError(f'TensorRT-RTX did not take {target} as its target; update it.')
