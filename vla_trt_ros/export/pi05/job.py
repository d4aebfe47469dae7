"""One export from beginning to end: weights, statistics and vocabulary found, checked, packed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from vla_trt_ros.bundle import Layout
from vla_trt_ros.config import Precision, RobotConfig
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.export.pi05.checkpoint import Checkpoint, Progress, open_checkpoint
from vla_trt_ros.export.pi05.metadata import Metadata, derive_config, read_metadata
from vla_trt_ros.export.pi05.parameters import (
    DTYPES,
    HalfParameters,
    ModelParameters,
    ParameterSource,
    parameter_dtype,
    skeleton,
)
from vla_trt_ros.export.pi05.random_weights import random_model
from vla_trt_ros.export.pi05.to_bundle import BundleContents, Report, write_bundle
from vla_trt_ros.export.robots import default_layout, plausible_stats
from vla_trt_ros.export.stats import Statistics, find_statistics, read_statistics
from vla_trt_ros.export.tokenizer import train_vocabulary
from vla_trt_ros.policies.pi05.spec import Pi05Config, PromptState
from vla_trt_ros.preprocess.tokenize import Tokenizer
from vla_trt_ros.sim.prompts import PROMPTS

VOCABULARIES = ('tokenizer.model', 'paligemma_tokenizer.model')


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What to export. None: what the checkpoint says, else the size's own value."""

    out: Path
    size: str
    base: Pi05Config
    """Of a checkpoint that does not name its own sizes."""
    robot: RobotConfig
    precisions: tuple[Precision, ...]
    """Of the ONNX graphs; none: no ONNX is made."""
    fast: tuple[Precision, ...] = ()
    """Of the files for cuda_graph (export/pi05/fast.py)."""
    device: str = 'cpu'
    """Where random weights are drawn: 'cpu' or 'cuda', whose numbers differ."""
    checkpoint: Path | None = None
    seed: int = 0
    """Of random weights, where there is no checkpoint."""
    views: tuple[str, ...] | None = None
    """None: those that the checkpoint names, else the robot's cameras, in its file's order."""
    horizon: int | None = None
    num_steps: tuple[int, ...] | None = None
    buckets: tuple[int, ...] | None = None
    prompt_state: PromptState | None = None
    actions: Literal['absolute', 'delta'] | None = None
    stats: Path | None = None
    tokenizer: Path | None = None
    half: bool = False
    """Round the weights to float16, and store those of fp32 graphs so."""
    card: Path | None = None
    """A model card of one's own, Markdown."""
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose inputs were all found and fit together."""

    job: ExportJob
    base: Pi05Config
    """The checkpoint's own sizes, else the job's."""
    config: Pi05Config
    layout: Layout
    statistics: Statistics
    vocabulary: bytes
    checkpoint: Checkpoint | None


def prepare(job: ExportJob, progress: Progress) -> Prepared:
    """Find and check everything that the export reads, before anything is written.

    ConfigError or BundleError otherwise. Reads every weight of a checkpoint once.
    """
    if job.half and job.precisions and 'fp32' not in job.precisions:
        raise ConfigError('--store fp16 is for fp32 graphs, and none are made; add fp32.')
    if job.card:
        read_card(job.card)
    metadata = read_metadata(job.checkpoint) if job.checkpoint else None
    named = metadata.network if metadata else None
    views = job.views or (named.views if named else tuple(job.robot.cameras))
    for view in views:
        if view not in job.robot.cameras:
            known = ', '.join(job.robot.cameras)
            raise ConfigError(f'view {view!r} is no camera of {job.robot.name!r}: {known}.')
    config = derive_config(
        job.base,
        metadata,
        views=views,
        horizon=job.horizon,
        num_steps=job.num_steps,
        buckets=job.buckets,
        prompt_state=job.prompt_state,
    )
    layout = default_layout(job.robot, job.actions or (metadata.actions if metadata else 'delta'))
    _check_width(layout, config)
    checkpoint = open_checkpoint(job.checkpoint, config) if job.checkpoint else None
    statistics = _statistics(job, layout, metadata)
    vocabulary = _vocabulary(job, config)
    _check_space(job.out, graph_bytes(config, job.precisions) + fast_bytes(config, job.fast))
    if checkpoint:
        checkpoint.check_finite(progress)
    return Prepared(job, named or job.base, config, layout, statistics, vocabulary, checkpoint)


def export(
    prepared: Prepared, card: str, notes: dict[str, str], report: Report
) -> ParameterSource:
    """Write the bundle; what stood in its place before stays until the new one is whole.

    Returns the weights that it was made of.
    """
    job = prepared.job
    contents = BundleContents(
        name=job.out.resolve().name,
        layout=prepared.layout,
        norm_stats=prepared.statistics.stats,
        normalization=prepared.statistics.method,
        vocabulary=prepared.vocabulary,
        model_card=card,
        created_by='vla-trt export',
        notes=notes,
    )
    network: ParameterSource = prepared.checkpoint or _random(prepared.config, job)
    try:
        write_bundle(network, contents, job.out, report, job.precisions, half=job.half)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                f'{job.out}: no space left on the disk; nothing was changed. Free about '
                f'{graph_bytes(prepared.config, job.precisions) / 1e9:.1f} GB, or name another '
                '--out.'
            ) from error
        raise
    return HalfParameters(network) if job.half else network


def read_card(path: Path) -> str:
    """A model card; ConfigError unless it is text."""
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'--card {path} cannot be read ({error}); name a Markdown file.'
        ) from error
    if not text.strip():
        raise ConfigError(f'--card {path} is empty; write what the policy is and was trained on.')
    return text


def graph_bytes(config: Pi05Config, precisions: Sequence[Precision]) -> int:
    """Bytes that the weights of the graphs take on disk."""
    total = 0
    for precision in precisions:
        compute = DTYPES[precision]
        for name, parameter in skeleton(config, torch.float32).named_parameters():
            if not name.startswith('time_mlp_') and '.dense.' not in name:
                total += parameter.numel() * parameter_dtype(name, compute).itemsize
    return total


def fast_bytes(config: Pi05Config, precisions: Sequence[Precision]) -> int:
    """Bytes that the files for cuda_graph take on disk, to a few percent."""
    count = embedding = 0
    for name, parameter in skeleton(config, torch.float32).named_parameters():
        if not name.startswith('time_mlp_') and '.dense.' not in name:
            count += parameter.numel()
            embedding += parameter.numel() if name.endswith('embed_tokens.weight') else 0
    sizes = {'fp32': 4 * count, 'bf16': 2 * count, 'fp8': count + embedding}
    return sum(sizes[p] for p in precisions)


def _random(config: Pi05Config, job: ExportJob) -> ParameterSource:
    wide = 'fp32' in (*job.precisions, *job.fast)
    compute = torch.float32 if wide else torch.bfloat16
    return ModelParameters(random_model(config, job.seed, compute, job.device))


def _check_width(layout: Layout, config: Pi05Config) -> None:
    for what, count in (('state', len(layout.state)), ('actions', len(layout.actions))):
        if count > config.action_dim:
            raise ConfigError(
                f'robot {layout.robot!r} has {count} {what}, the network {config.action_dim}; '
                'choose the checkpoint of this robot.'
            )


def _statistics(job: ExportJob, layout: Layout, metadata: Metadata | None) -> Statistics:
    if metadata is None or job.checkpoint is None:
        if job.stats is None:
            return Statistics(plausible_stats(job.robot), 'quantiles')
        return read_statistics(job.stats, layout)
    path = job.stats or find_statistics(job.checkpoint)
    return read_statistics(path, layout, metadata.modes)


def _vocabulary(job: ExportJob, config: Pi05Config) -> bytes:
    path = job.tokenizer
    if path is None and job.checkpoint is None:
        prompts = (text for texts in PROMPTS.values() for text in texts)
        return train_vocabulary(prompts, config.vocab_size)
    if path is None and job.checkpoint is not None:
        path = next((p for n in VOCABULARIES if (p := job.checkpoint / n).is_file()), None)
    if path is None:
        raise ConfigError(
            "a checkpoint holds no vocabulary: give PaliGemma's SentencePiece file with "
            '--tokenizer (paligemma_tokenizer.model of openpi, tokenizer.model of PaliGemma).'
        )
    Tokenizer(path, config.prompt_buckets, config.vocab_size)
    return path.read_bytes()


def _check_space(out: Path, needed: int) -> None:
    place = out.resolve().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise BundleError(
            f'{out} needs {needed / 1e9:.1f} GB beside what is there, {free / 1e9:.1f} GB are '
            'free; free some, or name another --out.'
        )
