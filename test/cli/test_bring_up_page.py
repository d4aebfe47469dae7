"""docs/howto/bring-up.md tells the arguments as they are."""

from pathlib import Path

from vla_trt_ros.bringup import ARGUMENTS

PAGE = Path(__file__).parents[2] / 'docs' / 'howto' / 'bring-up.md'


def test_table_of_arguments_is_the_one_of_bringup():
    lines = PAGE.read_text(encoding='utf-8').splitlines()
    start = lines.index('| argument | default | values | meaning |') + 2
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in lines[start : lines.index('', start)]
    ]
    assert rows == [
        [
            f'`{a.name}`',
            f'`{a.default}`' if a.default else '',
            ' '.join(f'`{choice}`' for choice in a.choices),
            a.description,
        ]
        for a in ARGUMENTS
    ]
