"""The checks of ``vla-trt doctor`` on a platform with a GPU: nothing is loaded onto it."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vla_trt_ros.bundle import Bundle, EngineEntry, open_bundle
from vla_trt_ros.cli import checks
from vla_trt_ros.cli.checks import Finding
from vla_trt_ros.config import STAGES, PlatformConfig, find_file
from vla_trt_ros.errors import VlaError
from vla_trt_ros.gpu.kernels import cache_dir

_MIB = 1 << 20


def gpu(name: str, platform: PlatformConfig) -> Iterator[Finding]:
    """Libraries, kernel caches, and whether the engines of bundle ``name`` fit this GPU."""
    backends = {platform.stage(stage).backend for stage in STAGES}
    if platform.target == 'cpu':
        return
    yield from _cuda_python()
    if 'cuda_graph' in backends:
        yield from _torch()
    yield _cache('kernel cache', cache_dir())
    if 'cuda_graph' in backends:
        triton = os.environ.get('TRITON_CACHE_DIR') or Path.home() / '.triton' / 'cache'
        yield _cache('Triton cache', Path(triton))
    try:
        bundle = open_bundle(find_file('bundles', name, ''))
        entries = [
            entry
            for stage in STAGES
            for entry in bundle.engines(
                stage, platform.stage(stage).backend, platform.stage(stage).precision
            )
        ]
    except VlaError:
        return  # told by checks.bundle
    yield from _target(entries, platform)
    yield from _memory(bundle, entries)


def _cuda_python() -> Iterator[Finding]:
    missing = [m for m in ('cuda.bindings', 'cuda.core') if not _there(m)]
    if missing:
        remedy = "pip install 'vla_trt_ros[tensorrt]'"
        yield Finding('cuda-python', 'fail', f'{", ".join(missing)} not importable', remedy)
    else:
        text = f'cuda-bindings {_version("cuda-bindings")}, cuda-core {_version("cuda-core")}'
        yield Finding('cuda-python', 'ok', text)


def _torch() -> Iterator[Finding]:
    remedy = "pip install 'vla_trt_ros[cuda-graph]' from PyTorch's index for your CUDA"
    found = importlib.util.find_spec('torch')
    if found is None or found.origin is None:
        return  # told by checks.backends
    # Importing torch takes seconds; its own file says what it was built for.
    text = Path(found.origin).with_name('version.py').read_text(encoding='utf-8')
    built = re.search(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
    triton = _there('triton')
    if built is None:
        text = f'torch {_version("torch")} is built without CUDA'
        yield Finding('torch for CUDA', 'fail', text, remedy)
    elif not triton:
        yield Finding('torch for CUDA', 'fail', 'triton is not importable', remedy)
    else:
        text = f'torch {_version("torch")} for CUDA {built[1]}, triton {_version("triton")}'
        yield Finding('torch for CUDA', 'ok', text)


def _cache(name: str, folder: Path) -> Finding:
    files = [path for path in folder.rglob('*') if path.is_file()] if folder.is_dir() else []
    if not files:
        return Finding(name, 'ok', f'{folder} is empty: the first start compiles into it')
    size = sum(path.stat().st_size for path in files) / _MIB
    return Finding(name, 'ok', f'{folder}: {len(files)} files, {size:.1f} MiB')


def _target(entries: list[EngineEntry], platform: PlatformConfig) -> Iterator[Finding]:
    here = checks.compute_capability()
    if not here:
        return  # told by checks.backends
    others = sorted({e.target for e in entries} - {'any', here})
    if others:
        text = f'engines are built for {", ".join(others)}, this GPU is {here}'
        remedy = f'vla-trt build or export on a machine like this one, platform {platform.name}'
        yield Finding('engine target', 'fail', text, remedy)
    else:
        yield Finding('engine target', 'ok', f'engines run on this GPU ({here})')


def _memory(bundle: Bundle, entries: list[EngineEntry]) -> Iterator[Finding]:
    told = checks.nvidia_smi('memory.free,memory.total').replace('MiB', '').split(',')
    if len(told) != 2 or not all(number.strip().isdigit() for number in told):
        return
    free, total = (int(number) for number in told)
    files = {entry.file for entry in entries if entry.backend != 'onnxruntime'}
    need = sum(bundle.file(name).stat().st_size for name in files) / _MIB
    text = f'{free} of {total} MiB free, engine files alone take {need:.0f}'
    if need > free:
        remedy = 'close what else runs on it, or choose a smaller precision'
        yield Finding('GPU memory', 'fail', text, remedy)
    else:
        yield Finding('GPU memory', 'ok', text)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # its parent is missing
        return False


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'of unknown version'
