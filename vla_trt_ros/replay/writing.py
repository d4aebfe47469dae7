"""The three files of a replay: report.html for people, report.json for machines, per_frame.csv."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vla_trt_ros.replay.page import render
from vla_trt_ros.replay.parts import FRAMES, disk, write_text
from vla_trt_ros.replay.report import Report

HTML, JSON, CSV = 'report.html', 'report.json', 'per_frame.csv'


def write_report(out: Path, report: Report, parts: Sequence[tuple[str, Path]]) -> list[Path]:
    """Write all three into ``out``; ``parts`` are setting and folder of each part. VlaError where
    the disk does not take one: the parts are kept, and what was there before stays whole.
    """
    write_text(out / JSON, json.dumps(report.as_json(), indent=1) + '\n')
    write_text(out / HTML, render(report))
    draft = out / f'{CSV}.draft'
    with disk(out / CSV):
        try:
            _join(draft, parts, report)
            draft.replace(out / CSV)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
    return [out / HTML, out / JSON, out / CSV]


def _join(path: Path, parts: Sequence[tuple[str, Path]], report: Report) -> None:
    """Every part's rows behind one header, with the setting, bag and noise seed in front."""
    names = [(s.name, p) for s in report.settings for p in s.parts]
    with path.open('w', encoding='utf-8', newline='') as joined:
        for k, ((setting, folder), (_, result)) in enumerate(zip(parts, names, strict=True)):
            bag, seed = result.conditions['bag'], result.conditions['seed']
            with (folder / FRAMES).open(encoding='utf-8', newline='') as rows:
                header = next(rows)
                if not k:
                    joined.write(f'setting,bag,seed,{header}')
                front = f'"{setting}","{bag}",{seed},'
                joined.writelines(front + row for row in rows)
