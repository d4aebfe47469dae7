"""The baseline of `vla-trt bench`: the same network in PyTorch, timed beside the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

from vla_trt_ros.cli.bench_measure import GPU_STAGE_CLOCK, STAGE_CLOCK
from vla_trt_ros.cli.bench_record import Record
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.policies.pi05.spec import Pi05Config

BASELINES = {
    'pytorch': 'our network in PyTorch, eager',
    'compile': 'our network in PyTorch, torch.compile',
}
_CLOCK = 'pixels and tokens in, normalised actions out, each run waited for'


def measure_baseline(
    like: Sequence[Record], config: Pi05Config, kind: str, n: int, *, gpu: bool
) -> list[Record]:
    """PyTorch's twin of the network of ``config``: ``n`` runs at the shape and step count of each
    record of ours. ``kind`` is a key of `BASELINES`.

    ConfigError where torch is not installed, or sees no GPU though ours ran on one.
    """
    check_baseline(kind, gpu)
    from vla_trt_ros.export.pi05.baseline import Baseline

    first = like[0]
    twin = Baseline(
        replace(config, views=config.views[: first.views]),
        bucket=first.prompt_bucket,
        prompt_tokens=first.prompt_tokens,
        device='cuda' if gpu else 'cpu',
        mode='compile' if kind == 'compile' else 'pytorch',
    )
    found = []
    for ours in like:
        progress = partial(bar, label=f'{ours.steps:>2} steps, {kind}')
        t = twin.measure(ours.steps, n, progress=progress)
        found.append(
            Record(
                hardware=ours.hardware,
                backend=f'pytorch {kind}' if kind == 'compile' else 'pytorch eager',
                precision=t.precision,
                views=ours.views,
                prompt_tokens=ours.prompt_tokens,
                horizon=ours.horizon,
                steps=ours.steps,
                e2e_total_ms=round(t.total_ms, 3),
                vision_ms=round(t.vision_ms, 3),
                prefix_ms=round(t.prefix_ms, 3),
                denoise_ms=round(t.denoise_ms, 3),
                hz=round(1e3 / t.total_ms, 2),
                p50_ms=round(t.total_ms, 3),
                p99_ms=round(t.p99_ms, 3),
                n=n,
                clock=f'{_CLOCK}; {"CUDA events" if gpu else "perf_counter"}',
                bundle='random weights',
                camera='',
                preprocess_ms=0.0,
                implementation=BASELINES[kind],
                host=ours.host,
                prompt_bucket=ours.prompt_bucket,
                stage_clock=GPU_STAGE_CLOCK if gpu else STAGE_CLOCK,
                engines_ms=round(t.total_ms, 3),
                per_step_ms=round(t.denoise_ms / ours.steps, 4),
                gpu_memory_mib=round(t.gpu_memory_mib, 1),
                software=f'torch {version("torch")}',
            )
        )
    return found


def check_baseline(kind: str, gpu: bool) -> None:
    """ConfigError where the baseline cannot run: said before an hour of measuring, not after."""
    if find_spec('torch') is None:
        raise ConfigError(
            f"--baseline {kind} needs torch, which is not installed: pip install '.[export]'."
        )
    if gpu:
        from vla_trt_ros.export.pi05.baseline import gpu_is_there

        if not gpu_is_there():
            raise ConfigError(
                f'--baseline {kind}: torch sees no GPU here, though the platform has one; install '
                "a build of torch for this GPU's CUDA."
            )
