"""How activation scales are best chosen: largest magnitude or 99.99th percentile, with SmoothQuant
or without. Cosine to float32 of each stage of nano, fed exact inputs.

    python benchmarks/activation_scales.py --json benchmarks/activation-scales.json

Needs the export extra. The record is of a nano with random weights; a trained network has louder
channels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import STAGES, find_file
from vla_trt_ros.export.calibration import collect_ranges
from vla_trt_ros.export.evaluate import load_graph, versions
from vla_trt_ros.export.frames import synthetic_frames
from vla_trt_ros.export.graphs import float_graphs, network_inputs
from vla_trt_ros.export.parity import cosine
from vla_trt_ros.export.quantize.ranges import Ranges
from vla_trt_ros.export.quantize.stage import quantize_stage

PROMPTS = ('reach the goal', 'open the drawer and put the red block into it')
STEPS = 10
VARIANTS = (
    ('fp8', 'max', False),
    ('fp8', 'percentile', False),
    ('int8', 'max', False),
    ('int8', 'percentile', False),
    ('int8', 'max', True),
)


def percentiles(ranges: Ranges) -> dict[str, object]:
    """The same ranges with the percentile for the largest magnitude."""
    return {
        key: replace(found, amax=found.percentile, channels=found.channels)
        for key, found in ranges.items()
    }


def main() -> None:
    """Every variant over every stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--count', type=int, default=32)
    args = parser.parse_args()
    bundle = open_bundle(find_file('bundles', 'nano', ''))
    part_a, part_b = synthetic_frames(bundle, args.count, PROMPTS).split()
    ranges: Mapping[str, Ranges] = collect_ranges(bundle, part_a)
    inputs = network_inputs(bundle, part_b)
    rows = []
    for stage in STAGES:
        graphs = {k: p for k, p in float_graphs(bundle, stage).items() if k[1] in (None, STEPS)}
        exact = []
        for tensors in inputs:
            bucket = None if stage == 'vision' else tensors['tokens'].shape[1]
            key = (bucket, STEPS if stage == 'denoise' else None)
            exact.append((key, load_graph(graphs[key]).run(tensors)))
        for precision, scale, smooth in VARIANTS:
            found = ranges[stage] if scale == 'max' else percentiles(ranges[stage])
            with tempfile.TemporaryDirectory() as folder:
                made = {k: Path(folder) / p.name for k, p in graphs.items()}
                quantize_stage(
                    stage,
                    precision,
                    {graphs[k]: made[k] for k in graphs},
                    Path(folder) / 'w',
                    ranges=found,
                    smooth=smooth,
                )
                loaded = {k: load_graph(p) for k, p in made.items()}
                cosines = []
                for tensors, (key, wanted) in zip(inputs, exact, strict=True):
                    outputs = loaded[key].run(tensors)
                    a, b = (
                        np.concatenate([x[n].astype(np.float64).ravel() for n in sorted(wanted)])
                        for x in (outputs, wanted)
                    )
                    cosines.append(cosine(a, b))
            rows.append(
                {
                    'stage': stage,
                    'precision': precision,
                    'scale': scale,
                    'smooth': smooth,
                    'cosine': round(float(np.mean(cosines)), 5),
                    'worst': round(min(cosines), 5),
                }
            )
            print(rows[-1], flush=True)
        for tensors, (_, outputs) in zip(inputs, exact, strict=True):
            tensors.update(outputs)
    if args.json:
        record = {
            'bundle': bundle.name,
            'frames': f'{args.count} made-up pictures, seed 0, half to calibrate on',
            'steps': STEPS,
            'judged_by': versions(),
            'rows': rows,
        }
        args.json.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
