"""The model card of a detector or classifier that comes without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vla_trt_ros.export.perception.parity import Parity
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig


def model_card(
    name: str,
    config: DetectorConfig | ClassifierConfig,
    notes: Mapping[str, str],
    results: Sequence[Parity],
) -> str:
    """Markdown: what is known of the network and where it came from."""
    labels = ', '.join(config.labels)
    rows = {'sees': f'{config.image_size} x {config.image_size} pixels, RGB', 'labels': labels}
    if isinstance(config, DetectorConfig):
        heads = {'boxes': 'final boxes', 'dense': 'a box per place, suppressed on the host'}
        rows |= {'gives': heads[config.head]}
        kind = 'A detector'
    else:
        rows |= {'boxes of': ', '.join(config.of_class) or 'any label'}
        kind = 'A classifier'
    rows |= dict(notes)
    table = '\n'.join(f'| {key} | {value} |' for key, value in rows.items())
    lines = [
        f'# {name}',
        '',
        f'{kind}, made by `vla-trt export`.',
        '',
        '| | |',
        '|---|---|',
        table,
    ]
    if results:
        lines += ['', 'Against float32, in ONNX Runtime on the calibration pictures:', '']
        lines += [f'- {result.line()}' for result in results]
    return '\n'.join(lines) + '\n'
