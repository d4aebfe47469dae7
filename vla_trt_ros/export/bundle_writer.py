"""Writes a bundle beside its place and moves it there when it is whole.

A crash, a full disk or Ctrl-C leaves the bundle that was there before as it was.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_trt_ros.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    PERCEPTION,
    EngineEntry,
    FileEntry,
    Layout,
    SourceEntry,
    engine_key,
    open_bundle,
    sha256_of,
    source_key,
)
from vla_trt_ros.closing import Closing
from vla_trt_ros.errors import BundleError


class BundleWriter(Closing):
    """``with BundleWriter(out) as writer:`` write files into ``writer.folder``, then `commit`.

    Leaving the block without `commit` throws the files away.
    """

    def __init__(self, out: Path) -> None:
        """BundleError if ``out`` is there and is no bundle: it would be replaced."""
        self.out = out
        if out.exists() and not (out / MANIFEST).is_file():
            raise BundleError(f'{out} exists and is no bundle; name another folder or remove it.')
        out.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))

    def close(self) -> None:
        """Remove what was not committed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def commit(
        self,
        *,
        name: str,
        family: str,
        config: object,
        model_card: str,
        engines: list[EngineEntry],
        created_by: str,
        notes: dict[str, str],
        layout: Layout | None = None,
        normalization: str = '',
        norm_stats: str = '',
        tokenizer: str = '',
        sources: Sequence[SourceEntry] = (),
    ) -> None:
        """Hash every file but the card, write the manifest, take the place of the bundle before.

        ``config`` is the family's dataclass; the file names are relative to ``folder``. Layout,
        statistics and vocabulary are a policy's alone.
        """
        files = {
            path.relative_to(self.folder).as_posix(): _measured(path)
            for path in sorted(self.folder.rglob('*'))
            if path.is_file() and path.name != model_card
        }
        policy = {
            'layout': layout and _plain(layout),
            'normalization': normalization,
            'norm_stats': norm_stats,
            'tokenizer': tokenizer,
        }
        if family in PERCEPTION:
            policy = {}
        manifest = {
            'format_version': FORMAT_VERSION,
            'name': name,
            'family': family,
            'created_by': created_by,
            'notes': notes,
            **policy,
            'model_card': model_card,
            'config': _plain(config),
            'engines': [_plain(e) for e in engines],
            'sources': [_plain(s) for s in sources],
            'files': {path: _plain(entry) for path, entry in files.items()},
        }
        text = _to_json(manifest) + '\n'
        (self.folder / MANIFEST).write_text(text, encoding='utf-8')
        self._replace()

    def _replace(self) -> None:
        self.folder.chmod(0o755)  # mkdtemp's 0700 would hide an installed bundle from other users
        if not self.out.exists():
            os.rename(self.folder, self.out)
            return
        before = Path(tempfile.mkdtemp(prefix=f'.{self.out.name}.old.', dir=self.out.parent))
        os.rename(self.out, before / 'bundle')
        try:
            os.rename(self.folder, self.out)
        except OSError:
            os.rename(before / 'bundle', self.out)
            raise
        finally:
            shutil.rmtree(before, ignore_errors=True)


def extend_bundle(
    path: Path,
    *,
    engines: Sequence[EngineEntry] = (),
    sources: Sequence[SourceEntry] = (),
    files: Sequence[str] = (),
) -> None:
    """Enter engines or sources whose files already lie in the bundle ``path``.

    An entry takes the place of the one with the same `engine_key` or `source_key`; the file of an
    engine that is replaced is no longer listed, and its owner may remove it. The manifest is
    written aside and renamed, so a crash leaves either the old one or the new one. Write the
    entries' files under new names first: until the manifest names them, nobody reads them.
    ``files`` are further ones that belong to them: the weights of engines.
    BundleError if a file is not there.
    """
    where = path / MANIFEST
    data = json.loads(where.read_bytes())
    old = open_bundle(path).manifest
    merged_engines = {engine_key(e): e for e in (*old.engines, *engines)}
    merged_sources = {source_key(s): s for s in (*old.sources, *sources)}
    data['engines'] = [_plain(e) for e in merged_engines.values()]
    data['sources'] = [_plain(s) for s in merged_sources.values()]
    for gone in {e.file for e in old.engines} - {e.file for e in merged_engines.values()}:
        if all(gone != s.file for s in merged_sources.values()):
            del data['files'][gone]
    names = {*files, *(e.file for e in engines)}
    names |= {name for s in sources for name in (s.file, *s.weights)}
    for name in sorted(names):
        if not (path / name).is_file():
            raise BundleError(f'{path / name} is not there; write it before it is entered.')
        data['files'][name] = _plain(_measured(path / name))
    aside = path / f'.{MANIFEST}.new'
    try:
        aside.write_text(_to_json(data) + '\n', encoding='utf-8')
        os.replace(aside, where)
    finally:
        aside.unlink(missing_ok=True)


def _measured(path: Path) -> FileEntry:
    return FileEntry(sha256_of(path), path.stat().st_size)


def _plain(value: object) -> Any:
    """A dataclass as mappings and lists, without entries that are None."""
    data = dataclasses.asdict(value)  # type: ignore[call-overload]
    return {key: item for key, item in data.items() if item is not None}


def _to_json(data: Any, indent: int = 0) -> str:
    """JSON with a line per entry, and whatever is short kept on one line: people read it too."""
    flat = json.dumps(data, ensure_ascii=False)
    if not isinstance(data, (dict, list, tuple)) or len(flat) + indent <= 96:
        return flat
    pad, inner = ' ' * indent, ' ' * (indent + 2)
    if isinstance(data, dict):
        rows = [
            f'{inner}{json.dumps(key, ensure_ascii=False)}: {_to_json(item, indent + 2)}'
            for key, item in data.items()
        ]
        return '{\n' + ',\n'.join(rows) + f'\n{pad}}}'
    rows = [inner + _to_json(item, indent + 2) for item in data]
    return '[\n' + ',\n'.join(rows) + f'\n{pad}]'
