"""A copy of nano that holds its float32 graphs as engines and sources, and no others."""

import json
import shutil

from vla_trt_ros.bundle import SourceEntry, open_bundle
from vla_trt_ros.config import share_dir
from vla_trt_ros.export.bundle_writer import extend_bundle
from vla_trt_ros.policies.pi05.spec import NANO

SHORT, LONG = NANO.prompt_buckets


def copy_nano(path):
    """The copy, at ``path``."""
    shutil.copytree(share_dir() / 'bundles' / 'nano', path)
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest['sources'] = []
    manifest['engines'] = [e for e in manifest['engines'] if e['precision'] == 'fp32']
    for name in [n for n in manifest['files'] if '.int8-cpu.' in n]:
        del manifest['files'][name]
        (path / name).unlink()
    (path / 'manifest.json').write_text(json.dumps(manifest))
    sources = [
        SourceEntry(e.stage, 'fp32', e.file, e.inputs, e.outputs, e.prompt_bucket, e.num_steps)
        for e in open_bundle(path).manifest.engines
    ]
    extend_bundle(path, sources=sources)
    return path
