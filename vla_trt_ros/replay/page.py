"""report.html: one file with everything in it, for a browser without a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from vla_trt_ros.datatypes import Float64Array
from vla_trt_ros.replay.moments import Moment, moments_of
from vla_trt_ros.replay.page_style import STYLE
from vla_trt_ros.replay.parts import PartResult
from vla_trt_ros.replay.report import Comparison, Report, SettingResult
from vla_trt_ros.viz.svg import Line, histogram, interval_bar, line_chart

_MOST_DRAWN = 6
"""Settings that a chart shows, as many as there are colours."""

_TABLE = (
    ('mae_h1', 'MAE, first row'),
    ('mae_h5', 'MAE, 5 rows'),
    ('mae_h10', 'MAE, 10 rows'),
    ('mae_all', 'MAE, whole chunk'),
    ('mse_all', 'MSE, whole chunk'),
    ('tip_error', 'tip, m'),
)
_MOTION = (
    ('gripper_agreement', 'gripper agrees'),
    ('seam', 'seam'),
    ('seam_max', 'largest seam'),
    ('jerk', 'jerk'),
    ('jerk_recorded', 'jerk, recorded'),
    ('limit_rate', 'beyond step limit'),
    ('clamp_rate', 'clamped'),
)
_TIMES = (
    ('inference_p50_ms', 'inference p50'),
    ('inference_p95_ms', 'p95'),
    ('inference_p99_ms', 'p99'),
    ('deadline_miss_rate', 'deadline missed'),
    ('stale_rate', 'pairs refused'),
    ('latency_p50_ms', 'latency p50'),
    ('latency_p99_ms', 'p99'),
    ('mean_jitter_ms', 'jitter'),
    ('mean_frame_rate', 'chunks/s'),
    ('missed_rate', 'frames missed'),
    ('starved_s', 'without a chunk, s'),
)
_SHARES = ('gripper_agreement', 'limit_rate', 'clamp_rate')


def render(report: Report) -> str:
    """The page."""
    shown = report.settings[:_MOST_DRAWN]
    sections = [
        _head(report),
        _verdicts(report),
        _section('Errors', _table(report.settings, _TABLE), _UNITS),
        _section('Motion', _table(report.settings, _MOTION), _SEAMS),
        _section('Compared on the same frames', _comparisons(report.comparisons), _PAIRED),
        _section(
            'In time?', _table(report.settings, _TIMES) + _latency(shown, report.deadline_ms)
        ),
        _section('Each joint', _per_joint(report)),
        _section(
            'Error over time', _over_time(shown), 'Mean over the whole chunk and all joints.'
        ),
        _section('Commanded against recorded', _actions(shown, report.joints), _FIRST_ROW),
        _section('Worst moments', _moments(report), _WORST),
        _section('What was counted', _counts(report)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>Replay: {escape(report.settings[0].name)}</title><style>{STYLE}</style></head>'
        f'<body><main>{"".join(sections)}</main></body></html>\n'
    )


_UNITS = (
    'Of the chunk against what was done, over all joints in the units of the robot file (rad, m, '
    'ratio).'
)
_SEAMS = (
    'Seam: how far a chunk is from the one before where it takes over. Jerk: RMS of the third '
    'difference, unit/s<sup>3</sup>.'
)
_PAIRED = (
    'Mean of the frame-by-frame difference with a 95 % interval. Neighbouring frames are alike: '
    'the bootstrap draws blocks of 5&nbsp;s, not frames. Bars have a scale of their own.'
)
_FIRST_ROW = 'Row 0 of every chunk, what the policy wants now, and what was done in that time.'
_WORST = 'Largest error over the whole chunk; one moment within two seconds at most.'


def _head(report: Report) -> str:
    facts = ''.join(
        f'<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>'
        for name, text in report.facts.items()
    )
    notes = ''.join(f'<li>{escape(note)}</li>' for note in report.notes)
    return (
        f'<header><h1>Replay</h1><dl>{facts}</dl>'
        f'{f"<ul class=notes>{notes}</ul>" if notes else ""}</header>'
    )


def _verdicts(report: Report) -> str:
    if not report.verdicts:
        return ''
    rows = ''.join(
        f'<tr><td class="{"pass" if v.passed else "fail"}">{"pass" if v.passed else "fail"}</td>'
        f'<td>{escape(str(v.gate))}</td><td>{escape(v.setting)}</td><td>{_number(v.value)}</td></tr>'
        for v in report.verdicts
    )
    return _section('Gates', f'<table class="left">{rows}</table>')


def _section(title: str, body: str, note: str = '') -> str:
    if not body:
        return ''
    said = f'<p class="note">{note}</p>' if note else ''
    return f'<section><h2>{escape(title)}</h2>{said}{body}</section>'


def _table(settings: Sequence[SettingResult], rows: Iterable[tuple[str, str]]) -> str:
    shown = [(m, title) for m, title in rows if any(m in s.summary.metrics for s in settings)]
    head = ''.join(f'<th class="head">{escape(title)}</th>' for _, title in shown)
    body = ''.join(
        f'<tr><th>{_swatch(k)}{escape(s.name)}</th>'
        + ''.join(f'<td>{_metric(s, m)}</td>' for m, _ in shown)
        + '</tr>'
        for k, s in enumerate(settings)
    )
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{body}</table></div>'


def _metric(setting: SettingResult, name: str) -> str:
    value = setting.summary.metrics.get(name)
    if value is None:
        return '-'
    if (name.endswith('_rate') and name != 'mean_frame_rate') or name in _SHARES:
        return f'{100 * value:.1f} %'
    return _number(value)


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    parts = []
    for c in comparisons:
        rows = ''.join(
            f'<tr><th>{escape(d.metric)}</th><td>{d.mean:+.3g}</td>'
            f'<td>[{d.low:+.3g}, {d.high:+.3g}]</td><td>{interval_bar(d.mean, d.low, d.high)}</td>'
            f'<td>{"differs" if d.clear else "within chance"}</td>'
            f'<td>{d.frames} frames, {d.blocks} blocks</td></tr>'
            for d in c.differences
        )
        title = f'{escape(c.setting)} <span class="quiet">minus</span> {escape(c.reference)}'
        parts.append(f'<h3>{title}</h3><table>{rows}</table>')
    return ''.join(parts)


def _times(report: Report, shown: Sequence[SettingResult]) -> str:
    return _table(report.settings, _TIMES) + _latency(shown, report.deadline_ms)


def _latency(settings: Sequence[SettingResult], deadline_ms: float) -> str:
    series = [(f's{k}', _column(s, 'inference_ms')) for k, s in enumerate(settings)]
    chart = histogram(series, unit='ms of inference', mark=deadline_ms)
    longest = max((float(np.nanmax(v)) for _, v in series if len(v)), default=0.0)
    if longest < deadline_ms / 2:
        chart = histogram(series, unit='ms of inference')
        said = f'The deadline, {deadline_ms:g} ms, is off the chart.'
    else:
        said = f'Dashed: the deadline, {deadline_ms:g} ms.'
    return f'{chart}<p class="note">{said}</p>' if chart else ''


def _per_joint(report: Report) -> str:
    head = ''.join(f'<th class="head">{escape(n)}, {escape(u)}</th>' for n, u in report.joints)
    body = ''
    for measure, title in (('mae_h1', 'first row'), ('mae_all', 'whole chunk'), ('seam', 'seam')):
        for k, s in enumerate(report.settings):
            cells = ''.join(f'<td>{_metric(s, f"{measure}.{n}")}</td>' for n, _ in report.joints)
            body += f'<tr><th>{_swatch(k)}{escape(s.name)}</th><td>{title}</td>{cells}</tr>'
    head = f'<tr><th></th><th class="head">MAE</th>{head}</tr>'
    return f'<div class="wide"><table>{head}{body}</table></div>'


def _over_time(settings: Sequence[SettingResult]) -> str:
    charts = []
    for bag, of_bag in _by_bag(settings):
        chart = line_chart([_line(f's{k}', p, 'mae_all') for k, p in of_bag], unit='MAE')
        charts.append((bag, chart))
    return _folded(charts)


def _actions(settings: Sequence[SettingResult], joints: Sequence[tuple[str, str]]) -> str:
    charts = []
    for bag, of_bag in _by_bag(settings):
        drawn = ''
        for name, unit in joints:
            lines = [_line('ink', of_bag[0][1], f'recorded.{name}')]
            lines += [_line(f's{k}', p, f'action.{name}') for k, p in of_bag]
            drawn += line_chart(lines, unit=f'{name}, {unit}', height=130)
        charts.append((bag, drawn))
    return f'<p class="note">{_legend(settings)}</p>{_folded(charts)}' if charts else ''


def _folded(charts: Sequence[tuple[str, str]]) -> str:
    """A fold for each bag, the first two open."""
    return ''.join(
        f'<details{" open" if k < 2 else ""}><summary>{escape(bag)}</summary>{chart}</details>'
        for k, (bag, chart) in enumerate(charts)
        if chart
    )


def _moments(report: Report) -> str:
    names = dict(report.joints)
    cards = [
        _card(report, k, moment, names)
        for k, moment in moments_of([s.parts for s in report.settings])
    ]
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ''


def _card(report: Report, k: int, moment: Moment, units: dict[str, str]) -> str:
    pictures = ''.join(
        f'<img alt="{escape(view)}" src="data:image/jpeg;base64,{data}">'
        for view, data in moment.pictures.items()
    )
    rows = np.arange(len(moment.actions), dtype=np.float64)
    chart = line_chart(
        [Line('ink', rows, moment.recorded), Line(f's{k % _MOST_DRAWN}', rows, moment.actions)],
        unit=f'{moment.joint}, {units[moment.joint]}',
        width=330,
        height=130,
        x_unit='row',
    )
    return (
        f'<figure><div class="pictures">{pictures}</div>{chart}<figcaption><b>{moment.error:.3g}'
        f'</b> at {moment.t:.1f} s of {escape(moment.bag)}, {escape(report.settings[k].name)}<br>'
        f'<span class="quiet">{escape(moment.prompt)}</span></figcaption></figure>'
    )


def _counts(report: Report) -> str:
    names = sorted({name for s in report.settings for name in s.summary.counts})
    head = ''.join(f'<th class="head">{escape(name.replace("_", " "))}</th>' for name in names)
    body = ''.join(
        f'<tr><th>{escape(s.name)}</th>'
        + ''.join(f'<td>{s.summary.counts.get(name, 0)}</td>' for name in names)
        + '</tr>'
        for s in report.settings
    )
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{body}</table></div>'


def _legend(settings: Sequence[SettingResult]) -> str:
    words = [f'{_swatch(k)}{escape(s.name)}' for k, s in enumerate(settings)]
    return ' &ensp; '.join(['<i class="swatch ink-box"></i>recorded', *words])


def _swatch(k: int) -> str:
    return f'<i class="swatch b{k}"></i>' if k < _MOST_DRAWN else ''


def _by_bag(
    settings: Sequence[SettingResult],
) -> list[tuple[str, list[tuple[int, PartResult]]]]:
    """Bag -> setting's number and part, of the first noise: others would only thicken lines."""
    found: dict[str, dict[int, PartResult]] = {}
    for k, setting in enumerate(settings):
        for part in setting.parts:
            if len(part.table.values):
                found.setdefault(str(part.conditions['bag']), {}).setdefault(k, part)
    return [(bag, list(parts.items())) for bag, parts in found.items()]


def _line(style: str, part: PartResult, column: str) -> Line:
    """A column over time, broken where one run of the bag ends and another begins."""
    t, y, block = part.table['t'], part.table[column], part.table['block']
    ends = np.flatnonzero(np.diff(block // 1000)) + 1
    return Line(style, np.insert(t, ends, t[ends]), np.insert(y, ends, np.nan))


def _column(setting: SettingResult, name: str) -> Float64Array:
    return np.concatenate([p.table[name] for p in setting.parts])


def _number(value: float) -> str:
    if value == round(value) and abs(value) < 1e6:
        return f'{value:.0f}'
    return f'{value:.4g}' if abs(value) < 100 else f'{value:.1f}'
