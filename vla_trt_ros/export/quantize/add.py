"""Further precisions for a bundle that is there: calibrate, quantise, enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import STAGES, Precision
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.export.bundle_writer import extend_bundle
from vla_trt_ros.export.calibration import collect_ranges
from vla_trt_ros.export.frames import Frames
from vla_trt_ros.export.graphs import graphs_of
from vla_trt_ros.export.precision import precision_row
from vla_trt_ros.export.quantize.bundle import NewGraphs, quantize_bundle


def add_precisions(
    path: Path,
    precisions: Sequence[Precision],
    frames: Frames | None,
    *,
    stages: Sequence[str] = STAGES,
    gpu: bool = True,
    half: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> NewGraphs:
    """Make ``precisions`` from the float graphs of the bundle at ``path`` and enter them.

    Part A of ``frames`` gives the scales; part B is left for parity. Files are written beside the
    bundle and moved in when all are whole; the manifest comes last, so that an interrupted run
    leaves the bundle as it was. ``gpu`` and ``half``: as in `quantize_bundle`.

    ConfigError where frames are needed and missing or too few,
    BundleError for a precision that the bundle holds already; else as `quantize_stage`.
    """
    bundle = open_bundle(path)
    rows = [precision_row(p) for p in precisions]
    for row in rows:
        for stage in stages:
            if graphs_of(bundle, stage, row.name):
                raise BundleError(
                    f'bundle {bundle.name!r} holds {row.name} graphs of {stage} already; export '
                    'it anew to change them.'
                )
    ranges = None
    if gpu and any(row.calibrated for row in rows):  # a CPU's int8 finds its scales as it runs
        if frames is None:
            needing = ', '.join(row.name for row in rows if row.calibrated)
            raise ConfigError(
                f'{needing} needs frames to calibrate on: a folder, a LeRobot data set or a bag.'
            )
        part_a, _ = frames.split()
        ranges = collect_ranges(bundle, part_a, report)
    folder = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.resolve().parent))
    try:
        new = quantize_bundle(
            bundle,
            precisions,
            folder,
            ranges=ranges,
            stages=stages,
            gpu=gpu,
            half=half,
            report=report,
        )
        for file in sorted(folder.iterdir()):
            os.replace(file, path / file.name)
        extend_bundle(path, engines=new.engines, sources=new.sources, files=new.weights)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return new
