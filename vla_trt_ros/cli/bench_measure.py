"""What `vla-trt bench` times: a policy on synthetic pictures."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from vla_trt_ros.cli.bench_record import Record
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.cli.words import picture_size
from vla_trt_ros.config import STAGES, PlatformConfig
from vla_trt_ros.datatypes import CameraFrame, Observation, PolicyResult, StageTimes
from vla_trt_ros.errors import BadPrompt, ConfigError
from vla_trt_ros.gpu.cuda import synchronize
from vla_trt_ros.gpu.device import device_name
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.planning.roofline import Plan
from vla_trt_ros.policies.base import Policy

CLOCK = 'infer(): camera frames on the host in, actions in robot units out; perf_counter'
GPU_CLOCK = (
    'frames uploaded, infer(), actions back: camera frames on the host in, actions in robot units '
    'out; perf_counter'
)
UPLOADED_CLOCK = (
    'infer(): camera frames on the GPU in, copied there and waited for before, as a node does '
    'when they arrive; actions in robot units out; perf_counter'
)
_PACKAGES = {
    'onnxruntime': ('onnxruntime',),
    'tensorrt': ('tensorrt', 'tensorrt-rtx-cu13-libs'),
    'cuda_graph': ('torch', 'triton'),
}
STAGE_CLOCK, GPU_STAGE_CLOCK = 'perf_counter around each stage', 'CUDA events between stages'


@dataclass(frozen=True, slots=True)
class Setting:
    """How often, with which pictures, on what."""

    n: int
    warm_up: int
    camera: str
    platform: PlatformConfig
    floor: Callable[[int, int, int], Plan | None]
    """Views, prompt tokens and steps to the floors, or None where no peaks are known."""

    @property
    def hardware(self) -> str:
        """What computes: the GPU where one runs any stage."""
        return device_name() if self.platform.on_gpu else cpu_name()


def synthetic_observation(policy: Policy, prompt: str, camera: str, views: int) -> Observation:
    """Smooth random pictures (seeded), one per view, and a state of zeros."""
    width, height = picture_size('--camera', camera)
    if not 0 <= views <= len(policy.views):
        raise ConfigError(
            f'--views {views}: bundle {policy.bundle.name} has {len(policy.views)} views '
            f'({", ".join(policy.views)}); 0 is all of them.'
        )
    used = policy.views[: views or None]
    rng = np.random.default_rng(0)
    frames = {}
    for view in used:
        coarse = rng.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), np.uint8)
        pixels = np.repeat(np.repeat(coarse, 32, 0), 32, 1)[:height, :width]
        data = np.ascontiguousarray(pixels).reshape(-1)
        frames[view] = CameraFrame(1, 1, view, 'rgb8', height, width, 3 * width, data)
    state = np.zeros(len(policy.bundle.layout.state), np.float32)
    return Observation(frames, state, prompt)


def prompt_of(policy: Policy, tokens: int) -> str:
    """A prompt as near to ``tokens`` as its words allow, never longer, in the same bucket.

    ConfigError where ``tokens`` is beyond every bucket, or too few for the state in the prompt.
    """
    buckets = policy.prompt_buckets
    fitting = [b for b in buckets if b >= tokens]
    if not fitting:
        raise ConfigError(
            f'--prompt-tokens {tokens}: the largest engine of bundle {policy.bundle.name} takes '
            f'{buckets[-1]}.'
        )
    shorter = max((b for b in buckets if b < tokens), default=0)
    text, found = '', 0.0
    for count in range(1, tokens + 1):  # a word is one token at least
        longer = ' '.join(['go'] * count)
        length = _length(policy, longer)
        if length > tokens:
            break
        text, found = longer, length
    if found <= shorter:
        raise ConfigError(
            f'--prompt-tokens {tokens}: bundle {policy.bundle.name} has no prompt of '
            f'{shorter + 1} to {tokens} tokens, its state included; ask for {fitting[0]}.'
        )
    return text


def _length(policy: Policy, prompt: str) -> float:
    try:
        return policy.check_prompt(prompt)
    except BadPrompt:  # too long for every bucket
        return math.inf


def measure(policy: Policy, observation: Observation, steps: int, setting: Setting) -> Record:
    """One record over ``setting.n`` runs after ``setting.warm_up``."""

    def once() -> tuple[PolicyResult, float, float]:
        begin = time.perf_counter()
        # What a camera's callback does as a frame arrives is inside the clock as well.
        frames = {view: policy.prepare_frame(view, f) for view, f in observation.frames.items()}
        prepared = time.perf_counter()
        result = policy.infer(replace(observation, frames=frames), num_steps=steps)
        return result, (prepared - begin) * 1e3, (time.perf_counter() - begin) * 1e3

    def uploaded() -> float:
        frames = {view: policy.prepare_frame(view, f) for view, f in observation.frames.items()}
        synchronize('copying frames to the GPU')
        begin = time.perf_counter()
        policy.infer(replace(observation, frames=frames), num_steps=steps)
        return (time.perf_counter() - begin) * 1e3

    def both() -> tuple[PolicyResult, float, float, float]:
        return (*once(), uploaded() if on_gpu else 0.0)

    on_gpu = policy.transport != 'host'
    for _ in range(setting.warm_up):
        both()
    # In turns, so that both see the GPU at the same temperature and clocks.
    runs = [both() for _ in bar(range(setting.n), f'{steps:>2} steps')]
    results, arrivals, totals, totals_uploaded = zip(*runs, strict=True)
    result, stages = results[-1], [r.times for r in results]
    p50, p99 = np.percentile(totals, [50, 99])
    runtimes = list(dict.fromkeys(policy.runtimes.values()))
    views, tokens = len(observation.frames), result.prompt_tokens
    denoise = _median(stages, 'denoise_ms')
    record = Record(
        hardware=setting.hardware,
        backend=' + '.join(dict.fromkeys(r.rpartition(' ')[0] for r in runtimes)),
        precision=' + '.join(dict.fromkeys(r.rpartition(' ')[2] for r in runtimes)),
        views=views,
        prompt_tokens=tokens,
        horizon=policy.horizon,
        steps=steps,
        e2e_total_ms=round(float(p50), 3),
        vision_ms=_median(stages, 'vision_ms'),
        prefix_ms=_median(stages, 'prefix_ms'),
        denoise_ms=denoise,
        hz=round(1e3 / float(p50), 2),
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
        n=setting.n,
        clock=GPU_CLOCK if setting.platform.on_gpu else CLOCK,
        bundle=policy.bundle.name,
        camera=setting.camera,
        preprocess_ms=_median(stages, 'preprocess_ms'),
        host=cpu_name(),
        prompt_bucket=next(b for b in policy.prompt_buckets if b >= tokens),
        stage_clock=GPU_STAGE_CLOCK if setting.platform.all_on_gpu else STAGE_CLOCK,
        frames_ms=round(float(np.median(arrivals)), 3),
        upload_ms=_median(stages, 'upload_ms'),
        download_ms=_median(stages, 'download_ms'),
        postprocess_ms=_median(stages, 'postprocess_ms'),
        engines_ms=_median(stages, 'engine_ms'),
        per_step_ms=round(denoise / steps, 4),
        gpu_memory_mib=round(result.device_memory_mib, 1),
        uploads=result.uploads,
        upload_bytes=result.upload_bytes,
        software=software(setting.platform.stage(s).backend for s in STAGES),
    )
    if on_gpu:
        p50, p99 = np.percentile(totals_uploaded, [50, 99])
        record = replace(
            record,
            uploaded_total_ms=round(float(p50), 3),
            uploaded_p99_ms=round(float(p99), 3),
            uploaded_clock=UPLOADED_CLOCK,
        )
    plan = setting.floor(views, tokens, steps)
    return record if plan is None else with_floor(record, plan)


def with_floor(record: Record, plan: Plan) -> Record:
    """``record`` and the floors of ``plan`` beside it."""
    floors = {s.stage: round(s.floor_ms, 4) for s in plan.stages}
    return replace(
        record,
        floor_device=plan.device.description,
        floor_ms=round(plan.floor_ms, 4),
        vision_floor_ms=floors['vision'],
        prefix_floor_ms=floors['prefix'],
        denoise_floor_ms=floors['denoise'],
    )


def software(backends: Iterable[str]) -> str:
    """'torch 2.11.0, triton 3.6.0': versions of the packages that ``backends`` run on."""
    names = [name for backend in backends for name in _PACKAGES.get(backend, ())]
    found = []
    for name in dict.fromkeys(names):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f'{name} {version(name)}')
    return ', '.join(found)


def _median(stages: list[StageTimes], name: str) -> float:
    return round(float(np.median([getattr(s, name) for s in stages])), 3)
