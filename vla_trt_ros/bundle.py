"""A bundle: a folder that holds a policy ready to run, and a manifest that names every byte of it.

``open_bundle`` reads and checks all of it before anything is loaded; docs/bundle.md has the
format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vla_trt_ros.config import PERCEPTION_STAGES, STAGES, Backend, Precision, RobotConfig
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.strict_yaml import build

FORMAT_VERSION = 1
MANIFEST = 'manifest.json'
PERCEPTION = ('detector', 'classifier')
"""Families that look at pictures and move nothing: no robot, no statistics, no vocabulary."""

Stage = Literal['vision', 'prefix', 'denoise', 'detect', 'classify']
"""A policy's three; or the one of a detector or classifier."""
_STAGES = dict(zip(PERCEPTION, ((stage,) for stage in PERCEPTION_STAGES), strict=True))


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine file: which stage it is, how it was made, and its tensors in order."""

    stage: Stage
    backend: Backend
    precision: Precision
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    prompt_bucket: int | None = None
    """Prompt tokens that the engine takes; None where the prompt does not enter (vision)."""
    num_steps: int | None = None
    """Euler steps in the engine; None for other stages than denoise."""
    target: str = 'any'
    """'any', or the one GPU that the engine runs on, as 'sm_87'."""


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One portable ONNX graph: what `vla-trt build` makes engines of and parity judges."""

    stage: Stage
    precision: Precision
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    prompt_bucket: int | None = None
    """As in `EngineEntry`."""
    num_steps: int | None = None
    """As in `EngineEntry`."""
    weights: tuple[str, ...] = ()
    """Files beside ``file`` that hold its external data; several graphs may share one."""


@dataclass(frozen=True, slots=True)
class ActionColumn:
    """One column of the actions."""

    joint: str
    kind: Literal['absolute', 'delta']
    """'delta': relative to the joint's position at observation time, for every row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which robot the numbers of a policy belong to."""

    robot: str
    step_dt: float
    """Seconds that one row of actions is executed over."""
    state: tuple[str, ...]
    """Joint or reading of each state entry."""
    actions: tuple[ActionColumn, ...]

    def __post_init__(self) -> None:
        if not self.step_dt > 0:
            raise ConfigError(f'step_dt {self.step_dt} s must be above 0.')
        if not self.actions:
            raise ConfigError('actions is empty; list the joint of every action column.')


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and hash of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json, less the network's own ``config``."""

    format_version: int
    name: str
    family: str
    created_by: str
    model_card: str
    """For people. Not in ``files``: what is said of a policy can change, the policy does not."""
    engines: tuple[EngineEntry, ...]
    files: dict[str, FileEntry]
    layout: Layout | None = None
    """This and the next three: of a policy alone."""
    normalization: Literal['quantiles', 'mean_std'] = 'quantiles'
    norm_stats: str = ''
    tokenizer: str = ''
    sources: tuple[SourceEntry, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    """Free text for people: licence, seed, training data."""

    def __post_init__(self) -> None:
        used = {name for name in (self.norm_stats, self.tokenizer) if name}
        used |= {e.file for e in self.engines} | {s.file for s in self.sources}
        used |= {name for s in self.sources for name in s.weights}
        for name in sorted(used - set(self.files)):
            raise ConfigError(f'{name!r} is used but not listed in files; export again.')
        for name in sorted(self.files):
            if not _is_safe(name):
                raise ConfigError(f'file {name!r} lies outside the bundle; do not use it.')
        _once('engine', [engine_key(e) for e in self.engines])
        _once('source', [source_key(s) for s in self.sources])


Key = tuple[str | int | None, ...]


def engine_key(entry: EngineEntry) -> Key:
    """What no two engines of a bundle have in common."""
    return (
        entry.stage,
        entry.backend,
        entry.precision,
        entry.prompt_bucket,
        entry.num_steps,
        entry.target,
    )


def source_key(entry: SourceEntry) -> Key:
    """What no two sources of a bundle have in common."""
    return (entry.stage, entry.precision, entry.prompt_bucket, entry.num_steps)


def _once(kind: str, keys: list[Key]) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f'{kind} {key} is listed twice; export again.')


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were found whole. ``config`` is the family's to read (pi05/spec.py)."""

    path: Path
    manifest: Manifest
    config: Mapping[str, Any]
    sha256: str
    """Hex digest of manifest.json, which holds the digest of every other file."""

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.manifest.name

    @property
    def layout(self) -> Layout:
        """Robot, joints and step time; BundleError for a bundle that holds no policy."""
        if self.manifest.layout is None:
            raise BundleError(
                f'bundle {self.name!r} holds a {self.manifest.family}, which drives no robot; '
                'choose the bundle of a policy.'
            )
        return self.manifest.layout

    @property
    def views(self) -> tuple[str, ...]:
        """Camera names in the network's order; every family's config has ``views``."""
        return tuple(self.config['views'])

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages of its family, in the order that they run."""
        return _STAGES.get(self.manifest.family, STAGES)

    @property
    def norm_stats_sha256(self) -> str:
        """Hex digest of the normalisation statistics."""
        return self.manifest.files[self.manifest.norm_stats].sha256

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists."""
        return self.path / name

    def engines(self, stage: str, backend: str, precision: str) -> tuple[EngineEntry, ...]:
        """Engines of one stage; BundleError says what there is when there is none."""
        of_stage = [e for e in self.manifest.engines if e.stage == stage]
        found = tuple(e for e in of_stage if (e.backend, e.precision) == (backend, precision))
        if not found:
            held = sorted({f'{e.backend} {e.precision}' for e in of_stage})
            how = f'build it: vla-trt build --bundle {self.path} --platform NAME'
            if backend == 'cuda_graph':
                how = f'export it again with --backend cuda_graph --precision {precision}'
            raise BundleError(
                f'bundle {self.name!r} holds no {stage} engine for {backend} {precision}, only '
                f'{", ".join(held) or "nothing"}; choose a platform that fits, or {how}.'
            )
        return found

    def sources(self, stage: str, precision: str) -> tuple[SourceEntry, ...]:
        """ONNX graphs of one stage; BundleError says what there is when there is none."""
        of_stage = [s for s in self.manifest.sources if s.stage == stage]
        found = tuple(s for s in of_stage if s.precision == precision)
        if not found:
            held = ', '.join(sorted({s.precision for s in of_stage})) or 'nothing'
            every = ','.join(sorted({s.precision for s in self.manifest.sources} | {precision}))
            raise BundleError(
                f'bundle {self.name!r} holds no {precision} ONNX of {stage}, only {held}; export '
                f'it again with --precision {every}.'
            )
        return found

    def check_robot(self, robot: RobotConfig) -> None:
        """Raise BundleError unless the bundle was made for ``robot``.

        Compared: the name, every joint, the row time and a camera for each view.
        """
        layout = self.layout

        def refuse(why: str) -> None:
            raise BundleError(f'bundle {self.name!r} does not fit robot {robot.name!r}: {why}')

        if layout.robot != robot.name:
            refuse(f'it was made for {layout.robot!r}; choose its bundle or its robot file.')
        for what, names, known in (
            ('reading' if robot.readings else 'joint', layout.state, robot.state_names),
            ('joint', (a.joint for a in layout.actions), robot.joint_names),
        ):
            for name in names:
                if name not in known:
                    refuse(f'{what} {name!r} is none of {", ".join(known)}.')
        if abs(layout.step_dt * robot.control_rate - 1.0) > 1e-6:
            refuse(
                f'its rows last {layout.step_dt} s, control_rate {robot.control_rate} Hz makes '
                f'{1 / robot.control_rate:.6g} s; set control_rate to {1 / layout.step_dt:.6g}.'
            )
        for view in self.views:
            if view not in robot.cameras:
                refuse(f'camera {view!r} is none of {", ".join(robot.cameras)}; add it.')


def open_bundle(path: Path) -> Bundle:
    """Read and check the bundle in folder ``path``: manifest, version, and every file's hash.

    Raises BundleError that names the file, what is wrong with it and the remedy.
    """
    if not path.is_dir():
        raise BundleError(f'{path} is no folder; give a bundle: bundles/nano, or export one.')
    where = path / MANIFEST
    try:
        raw = where.read_bytes()
    except OSError as error:
        raise BundleError(
            f'{where} cannot be read ({error.strerror}); {path} is no bundle, export one.'
        ) from error
    manifest, config = _parse(raw, where)
    for name, entry in manifest.files.items():
        _check_file(path / name, entry)
    return Bundle(path, manifest, config, hashlib.sha256(raw).hexdigest())


def _parse(raw: bytes, where: Path) -> tuple[Manifest, Mapping[str, Any]]:
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise BundleError(f'{where} is not JSON ({error}); copy the bundle again.') from error
    if not isinstance(data, dict):
        raise BundleError(f'{where}: expected a mapping; copy the bundle again.')
    version = data.get('format_version')
    if version != FORMAT_VERSION:
        raise BundleError(
            f'{where}: format_version {version!r}, this release reads {FORMAT_VERSION}; '
            'export the bundle again with this release.'
        )
    config = data.pop('config', None)
    views = config.get('views') if isinstance(config, dict) else None
    looks = data.get('family') in PERCEPTION
    for key in ('layout', 'normalization', 'norm_stats', 'tokenizer'):
        if (key in data) == looks:
            state = 'does not belong in' if looks else 'is missing from'
            raise BundleError(
                f'{where}: {key!r} {state} the manifest of family {data.get("family")!r}; export '
                'the bundle again.'
            )
    if looks and isinstance(config, dict):
        pass  # it has no views; perception/spec.py checks the rest
    elif not isinstance(views, list) or not all(isinstance(v, str) for v in views) or not views:
        raise BundleError(f'{where}: config.views must list camera names; export again.')
    try:
        return build(Manifest, data, str(where)), config
    except ConfigError as error:
        raise BundleError(str(error)) from error


def _check_file(path: Path, entry: FileEntry) -> None:
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            state = 'truncated' if size < entry.bytes else 'too long'
            raise BundleError(
                f'{path} is {state}: {size} of {entry.bytes} bytes; copy the bundle again.'
            )
        digest = sha256_of(path)
    except OSError as error:
        raise BundleError(
            f'{path} cannot be read ({error.strerror}); copy the bundle again.'
        ) from error
    if digest != entry.sha256:
        raise BundleError(
            f'{path} was altered: sha256 {digest[:12]}..., the manifest says '
            f'{entry.sha256[:12]}...; copy the bundle again.'
        )


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_safe(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith('/') and '..' not in parts and '\\' not in name
