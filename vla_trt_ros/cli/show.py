"""What a bundle holds: its network, robot, engines and ONNX sources, with sizes. Every file's
hash is checked on the way; a bundle that was altered is refused by the file's name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_trt_ros.bundle import PERCEPTION, Bundle, EngineEntry, SourceEntry, open_bundle
from vla_trt_ros.config import find_file
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig
from vla_trt_ros.perception.spec import read_config as read_perception_config
from vla_trt_ros.planning.work import network_work
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.policies.pi05.spec import Pi05Config
from vla_trt_ros.tables import grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which bundle; for people or for machines."""
    parser.add_argument('bundle', metavar='BUNDLE', help='name or path')
    parser.add_argument('--json', default='', metavar='FILE', help='write it all; - = stdout')


def run(args: argparse.Namespace) -> int:
    """Open, check, print."""
    bundle = open_bundle(find_file('bundles', args.bundle, ''))
    looks = bundle.manifest.family in PERCEPTION
    found = perception_contents(bundle) if looks else contents(bundle)
    if args.json != '-':
        print(perception_page(found) if looks else page(found))
    if args.json:
        text = json.dumps(found, indent=1) + '\n'
        if args.json == '-':
            print(text, end='')
        else:
            Path(args.json).write_text(text, encoding='utf-8')
            print(f'wrote {args.json}')
    return 0


def contents(bundle: Bundle) -> dict[str, Any]:
    """Everything that `page` prints. Bytes of a row are those of its graphs or plans, and of the
    weights beside them where the bundle says which these are, each file once.
    """
    manifest, config = bundle.manifest, read_config(bundle)
    return {
        'name': bundle.name,
        'path': str(bundle.path),
        'sha256': bundle.sha256,
        'family': manifest.family,
        'created_by': manifest.created_by,
        'notes': dict(manifest.notes),
        'layout': asdict(bundle.layout),
        'normalization': manifest.normalization,
        'config': dict(bundle.config),
        'parameters': parameters(config),
        'engines': _groups(bundle, manifest.engines),
        'sources': _groups(bundle, manifest.sources),
        'files': {name: entry.bytes for name, entry in manifest.files.items()},
        'bytes': sum(entry.bytes for entry in manifest.files.values()),
        'hashes': 'checked',
    }


def perception_contents(bundle: Bundle) -> dict[str, Any]:
    """`contents` of a detector or classifier."""
    manifest = bundle.manifest
    if manifest.family == 'detector':
        read_perception_config(bundle, DetectorConfig)
    else:
        read_perception_config(bundle, ClassifierConfig)
    return {
        'name': bundle.name,
        'path': str(bundle.path),
        'sha256': bundle.sha256,
        'family': manifest.family,
        'created_by': manifest.created_by,
        'notes': dict(manifest.notes),
        'config': dict(bundle.config),
        'engines': _groups(bundle, manifest.engines),
        'sources': _groups(bundle, manifest.sources),
        'files': {name: entry.bytes for name, entry in manifest.files.items()},
        'bytes': sum(entry.bytes for entry in manifest.files.values()),
        'hashes': 'checked',
    }


def perception_page(found: dict[str, Any]) -> str:
    """For people."""
    config = found['config']
    size = config['image_size']
    notes = '; '.join(f'{key}: {text}' for key, text in found['notes'].items())
    looks = f'; boxes of {", ".join(config["of_class"])}' if config.get('of_class') else ''
    lines = [
        f'{found["name"]}: {found["family"]}, {found["path"]}',
        f'sha256 {found["sha256"]}',
        f'made by {found["created_by"]}{"; " if notes else ""}{notes}',
        f'sees {size} x {size} pixels{looks}',
        f'labels: {", ".join(config["labels"])}',
        '',
        *grid([row[:5] + row[7:] for row in _rows(found)]),
        '',
        f'{len(found["files"]) + 1} files, {_megabytes(found["bytes"])} MB; every hash is right',
    ]
    return '\n'.join(lines)


def parameters(config: Pi05Config) -> dict[str, int]:
    """Numbers that each stage was trained with and still holds; the time embedding and adaRMS of
    the checkpoint are tables here and not counted.
    """
    works = network_work(config, config.max_prompt_tokens, 1)
    return {work.stage: work.weights + work.half_weights for work in works}


def page(found: dict[str, Any]) -> str:
    """For people."""
    config, layout, counts = found['config'], found['layout'], found['parameters']
    actions = ', '.join(f'{a["joint"]} ({a["kind"]})' for a in layout['actions'])
    notes = '; '.join(f'{key}: {text}' for key, text in found['notes'].items())
    stages = ', '.join(f'{stage} {_millions(n)}' for stage, n in counts.items())
    size, views = config['image_size'], config['views']
    lines = [
        f'{found["name"]}: {found["family"]}, {found["path"]}',
        f'sha256 {found["sha256"]}',
        f'made by {found["created_by"]}{"; " if notes else ""}{notes}',
        f'robot {layout["robot"]}, rows of {1e3 * layout["step_dt"]:g} ms, normalised by '
        f'{found["normalization"]}',
        f'  state: {", ".join(layout["state"]) or "none"}',
        f'  actions: {actions}',
        f'network: views {", ".join(views)} of {size} x {size} pixels, horizon '
        f'{config["horizon"]}, state in the prompt: {config["prompt_state"]}',
        f'parameters: {_millions(sum(counts.values()))} ({stages})',
        '',
    ]
    if found['engines'] or found['sources']:
        lines += grid(_rows(found))
    else:
        lines.append('no engines and no sources')
    shared = _shared(found)
    if shared:
        listed = ', '.join(f'{name} {_megabytes(size)}' for name, size in shared.items())
        lines += ['', f'weights beside the graphs, MB: {listed}']
    count = len(found['files']) + 1
    lines += ['', f'{count} files, {_megabytes(found["bytes"])} MB; every hash is right']
    return '\n'.join(lines)


def _rows(found: dict[str, Any]) -> list[list[str]]:
    rows = [['stage', 'kind', 'precision', 'target', 'files', 'prompt tokens', 'steps', 'MB']]
    for kind in ('engines', 'sources'):
        for group in found[kind]:
            rows.append([group['stage'], group.get('backend', 'source'), group['precision']])
            rows[-1] += [group.get('target', 'any'), str(len(group['files']))]
            rows[-1] += [' '.join(map(str, group[k])) for k in ('prompt_buckets', 'num_steps')]
            rows[-1].append(_megabytes(group['bytes']))
    return rows


def _groups(bundle: Bundle, entries: Iterable[EngineEntry | SourceEntry]) -> list[dict[str, Any]]:
    """Entries that differ in prompt bucket and step count alone, as one; in the order that the
    stages run.
    """
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda e: bundle.stages.index(e.stage)):
        kind: dict[str, str] = {'stage': entry.stage}
        if isinstance(entry, EngineEntry):
            kind |= {'backend': entry.backend, 'target': entry.target}
        kind['precision'] = entry.precision
        lists: dict[str, Any] = {'prompt_buckets': [], 'num_steps': [], 'files': []}
        group = groups.setdefault(tuple(kind.values()), {**kind, **lists})
        for key, value in (
            ('prompt_buckets', entry.prompt_bucket),
            ('num_steps', entry.num_steps),
            ('files', entry.file),
        ):
            if value is not None and value not in group[key]:
                group[key] = sorted([*group[key], value])
    beside = {source.file: source.weights for source in bundle.manifest.sources}
    for group in groups.values():
        group['weights'] = sorted({w for name in group['files'] for w in beside.get(name, ())})
        held = (*group['files'], *group['weights'])
        group['bytes'] = sum(bundle.manifest.files[name].bytes for name in held)
    return list(groups.values())


def _shared(found: dict[str, Any]) -> dict[str, int]:
    """External weights that no row counts."""
    rows = (*found['engines'], *found['sources'])
    used = {name for row in rows for name in row['weights']}
    sizes: dict[str, int] = found['files']
    return {n: size for n, size in sizes.items() if n.endswith('.weights') and n not in used}


def _millions(count: int) -> str:
    return f'{count / 1e6:.1f} M' if count < 1e9 else f'{count / 1e9:.2f} G'


def _megabytes(size: int) -> str:
    return f'{size / 1e6:.1f}'
