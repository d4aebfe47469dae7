"""Lists of benchmark records: shapes by name, and merging new ones into a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SAME = ('hardware', 'implementation', 'clock', 'backend', 'precision')
SAME += ('views', 'prompt', 'horizon', 'steps')


def shape(text):
    """'3x200x50' as views, prompt tokens and horizon."""
    try:
        views, tokens, horizon = map(int, text.split('x'))
    except ValueError:
        raise SystemExit(
            f'shape {text!r}: write VIEWSxTOKENSxHORIZON, such as 3x200x50.'
        ) from None
    return views, tokens, horizon


def merge(path, records):
    """Write ``records`` into the list at ``path``; what it holds of the same measurement goes."""
    path = Path(path)
    held = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []
    new = {_key(r) for r in records}
    kept = [r for r in held if _key(r) not in new]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept + list(records), indent=1) + '\n', encoding='utf-8')


def put(path, values):
    """Write ``values`` into the mapping at ``path``; what else it holds stays."""
    path = Path(path)
    held = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    path.write_text(json.dumps({**held, **values}, indent=1) + '\n', encoding='utf-8')


def line(record):
    """A record in a line."""
    stages = ', '.join(f'{s} {record[f"{s}_ms"]}' for s in ('vision', 'prefix', 'denoise'))
    early = record.get('uploaded_total_ms')
    uploaded = f', {early} with frames uploaded before' if early else ''
    return (
        f'{record.get("implementation", "vla_trt_ros")} {record["precision"]}, '
        f'{record["views"]} views, {record["prompt_tokens"]} tokens, horizon '
        f'{record["horizon"]}, {record["steps"]} steps: {record["p50_ms"]} ms, p99 '
        f'{record["p99_ms"]}{uploaded} ({stages}), n = {record["n"]}'
    )


def peer_arguments(doc, peer, count, shapes):
    """The command line of a peer's driver: ``count`` timed runs and ``shapes`` by default."""
    parser = argparse.ArgumentParser(description=doc.partition('\n')[0])
    parser.add_argument('folder', type=Path, help=f'a clone of {peer}')
    parser.add_argument('--json', type=Path, metavar='FILE', help='merged into')
    parser.add_argument('--revision', default='', help='commit of the folder, for the record')
    parser.add_argument('-n', type=int, default=count, help='timed runs a shape')
    parser.add_argument('--shapes', default=shapes, help='VIEWSxTOKENSxHORIZON, with commas')
    args = parser.parse_args()
    args.shapes = [shape(text) for text in args.shapes.split(',')]
    return args


def tell(records, path):
    """Print ``records``, and merge them into the file at ``path`` if there is one to write."""
    print('\n'.join(map(line, records)))
    if path:
        merge(path, records)


def _key(record):
    # What runs is the engine that holds the prompt; how much of it is filled does not matter.
    prompt = record.get('prompt_bucket') or record['prompt_tokens']
    known = {'implementation': 'vla_trt_ros', **record, 'prompt': prompt}
    return tuple(known[name] for name in SAME)
