"""What the manifest of a detector or classifier says of its network, and the tensors that follow.

``images`` is float32 [1, 3, side, side], RGB. A detector's are 0 to 1; its output is float32

* ``boxes``: [1, N, 6], left, upper, right, lower, score and label of each box, at most one of an
  object (yolo26, yolov10, the networks of this package);
* ``dense``: [1, 4 + labels, N], centre, width, height and a score per label of every place of the
  network's grid, from which the best box of each object is still to be chosen (yolov8 to yolo12).

Coordinates are pixels of ``images``. A classifier's output is float32 [1, labels].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from vla_trt_ros.bundle import Bundle, EngineEntry, SourceEntry
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.strict_yaml import build

Head = Literal['boxes', 'dense']
MAX_SIDE = 4096


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """``config`` of a detector's manifest."""

    image_size: int
    """Side of the square that a picture is fitted into, pixels."""
    labels: tuple[str, ...]
    head: Head
    score_threshold: float = 0.25
    """Boxes below it are dropped; whoever loads the detector may choose another."""
    iou_threshold: float = 0.7
    """dense: of two boxes of one label that overlap by more than this, the better one stays."""
    max_detections: int = 300

    def __post_init__(self) -> None:
        _check_size(self.image_size)
        _check_labels(self.labels)
        check_share('score_threshold', self.score_threshold)
        check_share('iou_threshold', self.iou_threshold)
        if self.max_detections < 1:
            raise ConfigError(f'max_detections {self.max_detections} must be 1 or more.')

    @property
    def images(self) -> TensorSpec:
        """The input; its name is the bundle's affair."""
        return TensorSpec('images', (1, 3, self.image_size, self.image_size), 'float32')


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """``config`` of a classifier's manifest."""

    image_size: int
    """Side of the square that a crop is stretched to, pixels."""
    labels: tuple[str, ...]
    of_class: tuple[str, ...] = ()
    """Labels of a detector whose boxes it looks at; empty: all of them."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Red, green and blue, 0 to 1, taken off before the division by ``std``."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    output: Literal['probabilities', 'logits'] = 'logits'
    margin: float = 0.0
    """What a crop shows around its box, as a share of the box's width and height on each side."""

    def __post_init__(self) -> None:
        _check_size(self.image_size)
        _check_labels(self.labels)
        for name, values in (('mean', self.mean), ('std', self.std)):
            if len(values) != 3:
                raise ConfigError(f'{name} has {len(values)} numbers; red, green and blue are 3.')
        if min(self.std) <= 0:
            raise ConfigError(f'std {list(self.std)} must be above 0.')
        if not 0 <= self.margin <= 4:
            raise ConfigError(f'margin {self.margin} is outside 0 to 4.')

    @property
    def images(self) -> TensorSpec:
        """The input; its name is the bundle's affair."""
        return TensorSpec('images', (1, 3, self.image_size, self.image_size), 'float32')


C = TypeVar('C', DetectorConfig, ClassifierConfig)
_KINDS = {DetectorConfig: 'detector', ClassifierConfig: 'classifier'}


def read_config(bundle: Bundle, cls: type[C]) -> C:
    """``config`` of ``bundle``, every engine and source of it checked against it.

    BundleError for a bundle of another family, and where labels or image size are not those of
    the graphs.
    """
    kind = _KINDS[cls]
    if bundle.manifest.family != kind:
        raise BundleError(
            f'bundle {bundle.name!r} holds a {bundle.manifest.family}, not a {kind}; choose '
            f'another, or make one: vla-trt export --{kind} FILE.'
        )
    try:
        config = build(cls, bundle.config, f'{bundle.path}/manifest.json: config')
    except ConfigError as error:
        raise BundleError(f'{error} Export the bundle again.') from error
    entries: list[EngineEntry | SourceEntry] = [*bundle.manifest.engines]
    for entry in [*entries, *bundle.manifest.sources]:
        check_tensors(f'{bundle.name!r}, {entry.file}', config, entry.inputs, entry.outputs)
    return config


def check_tensors(
    where: str,
    config: DetectorConfig | ClassifierConfig,
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
) -> None:
    """BundleError unless the tensors of a graph are those of ``config``; ``where`` leads it."""
    wanted = config.images
    found = tuple(inputs)
    if len(found) != 1 or (found[0].shape, found[0].dtype) != (wanted.shape, wanted.dtype):
        raise BundleError(
            f'bundle {where}: it reads {_list(found)}, image_size {config.image_size} means '
            f'float32 {list(wanted.shape)}; export it again.'
        )
    made = tuple(outputs)
    if len(made) != 1 or made[0].dtype != 'float32':
        raise BundleError(
            f'bundle {where}: it writes {_list(made)}; one float32 tensor was expected.'
        )
    count, shape = len(config.labels), made[0].shape
    if isinstance(config, ClassifierConfig):
        if shape != (1, count):
            raise BundleError(
                f'bundle {where}: the output is {list(shape)}, {count} labels '
                f'({_names(config.labels)}) mean [1, {count}]; give the labels of this network.'
            )
    elif config.head == 'boxes':
        if len(shape) != 3 or shape[0] != 1 or shape[2] != 6:
            raise BundleError(
                f'bundle {where}: the output is {list(shape)}, head boxes means [1, N, 6]; '
                'export it again.'
            )
    elif len(shape) != 3 or shape[:2] != (1, 4 + count):
        raise BundleError(
            f'bundle {where}: the output is {list(shape)}, {count} labels '
            f'({_names(config.labels)}) mean [1, {4 + count}, N]; give the labels of this network.'
        )


def check_share(name: str, value: float) -> None:
    """ConfigError unless ``value`` is 0 to 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f'{name} {value} is outside 0 to 1.')


def _check_size(side: int) -> None:
    if not 1 <= side <= MAX_SIDE:
        raise ConfigError(f'image_size {side} is outside 1 to {MAX_SIDE}.')


def _check_labels(labels: tuple[str, ...]) -> None:
    if not labels or not all(labels):
        raise ConfigError('labels is empty, or a label is; name every class of the network.')
    doubled = sorted({name for name in labels if labels.count(name) > 1})
    if doubled:
        raise ConfigError(f'label {doubled[0]!r} is listed twice.')


def _names(labels: tuple[str, ...]) -> str:
    return ', '.join(labels) if len(labels) <= 4 else f'{", ".join(labels[:3])}, ...'


def _list(specs: tuple[TensorSpec, ...]) -> str:
    return ', '.join(f'{s.name} {s.dtype} {list(s.shape)}' for s in specs) or 'nothing'
