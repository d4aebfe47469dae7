import pytest

from vla_trt_ros.tables import grid


def test_words_stand_left_and_numbers_right():
    assert grid(
        [['stage', 'ms', 'bound'], ['vision', '1.25', 'memory'], ['all', '20.00', '']]
    ) == [
        'stage      ms  bound',
        'vision   1.25  memory',
        'all     20.00',
    ]


def test_a_column_is_what_its_first_word_is():
    lines = grid([['a', 'steps'], ['x', ''], ['y', '10'], ['z', '1, 2, 3']])
    assert lines == ['a    steps', 'x', 'y       10', 'z  1, 2, 3']
    assert grid([['name', 'n']]) == ['name  n']


def test_a_row_of_another_length_is_a_fault():
    with pytest.raises(ValueError, match='shorter'):
        grid([['a', 'b'], ['c']])
