"""A copy of nano that holds its float32 graphs as sources, and no others."""

import json
import shutil

from vla_trt_ros.bundle import SourceEntry, open_bundle
from vla_trt_ros.config import share_dir
from vla_trt_ros.export.bundle_writer import extend_bundle


def copy_nano(path):
    """The copy, at ``path``."""
    shutil.copytree(share_dir() / 'bundles' / 'nano', path)
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest['sources'] = []
    (path / 'manifest.json').write_text(json.dumps(manifest))
    sources = [
        SourceEntry(e.stage, 'fp32', e.file, e.inputs, e.outputs, e.prompt_bucket, e.num_steps)
        for e in open_bundle(path).manifest.engines
        if (e.backend, e.precision) == ('onnxruntime', 'fp32')
    ]
    extend_bundle(path, sources=sources)
    return path
