"""How report.html looks, on light and on dark screens. Series colours are Okabe and Ito's."""

_LIGHT = (
    '--page:#fff;--ink:#1c1f24;--quiet:#6b7280;--grid:#e5e7eb;--pass:#0b7a3e;--fail:#c02626;'
    '--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9;'
)
_DARK = (
    '--page:#15181d;--ink:#e6e8eb;--quiet:#9aa1ac;--grid:#2c323b;--pass:#4cc38a;--fail:#ff8080;'
    '--c0:#5ab0e8;--c1:#f08c4a;--c2:#3fc79a;--c3:#e3a0c6;--c4:#f2bf4a;--c5:#8fd0f5;'
)
_SERIES = ''.join(f'.s{k}{{stroke:var(--c{k})}}.b{k}{{background:var(--c{k})}}' for k in range(6))

STYLE = (
    f':root{{color-scheme:light dark;{_LIGHT}}}'
    f'@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}'
    'body{margin:0;background:var(--page);color:var(--ink);'
    'font:14px/1.5 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}'
    'main{max-width:880px;margin:0 auto;padding:24px 20px 60px}'
    'h1{font-size:24px;margin:0 0 12px}h2{font-size:17px;margin:36px 0 6px}'
    'h3{font-size:14px;margin:16px 0 4px;font-weight:600}'
    'dl{display:grid;grid-template-columns:1fr 1fr;gap:4px 28px;margin:0}'
    'dl div{display:flex;gap:10px;border-bottom:1px solid var(--grid);padding:3px 0}'
    'dt{color:var(--quiet);min-width:88px}dd{margin:0;overflow-wrap:anywhere}'
    '.note,.quiet,.notes{color:var(--quiet)}.note{margin:2px 0 8px}'
    '.notes{padding-left:18px;margin:10px 0 0}.wide{overflow-x:auto}'
    'table{border-collapse:collapse;font-variant-numeric:tabular-nums}'
    'td,th{padding:4px 12px 4px 0;border-bottom:1px solid var(--grid);text-align:right;'
    'font-weight:400;white-space:nowrap;vertical-align:middle}'
    'th:first-child,td:first-child{text-align:left}th.head{color:var(--quiet);'
    'white-space:normal;vertical-align:bottom}'
    '.left td{text-align:left}.pass,.fail{font-weight:600}'
    '.pass{color:var(--pass)}.fail{color:var(--fail)}'
    '.swatch{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:7px}'
    '.ink-box{background:var(--ink)}'
    'svg{display:block;max-width:100%;height:auto}svg text{font-size:10px;fill:var(--quiet)}'
    'polyline{fill:none;stroke-width:1.3;stroke-linejoin:round}.ink{stroke:var(--ink)}'
    '.grid{stroke:var(--grid)}.zero{stroke:var(--quiet)}line.wide{stroke-width:3}'
    '.mark{stroke:var(--quiet);stroke-dasharray:4 3}.dot{fill:var(--ink)}'
    '.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:24px 28px}'
    'figure{margin:0}.pictures{display:flex;gap:6px}'
    '.pictures img{width:calc(50% - 3px);border-radius:3px;object-fit:contain}'
    'figcaption{margin-top:2px}summary{cursor:pointer;font-weight:600;margin:12px 0 4px}'
    f'{_SERIES}'
    '@media(max-width:640px){dl{grid-template-columns:1fr}}'
)
