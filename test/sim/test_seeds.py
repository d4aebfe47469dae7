"""Scenes that are learned are not the scenes that are judged."""

import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.seeds import (
    HELD_OUT_FROM,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    check_evaluation_seeds,
    check_training_seeds,
)


def test_the_ranges_do_not_meet():
    assert TRAINING_SEEDS.stop <= VALIDATION_SEEDS.start
    assert VALIDATION_SEEDS.stop <= HELD_OUT_FROM


@pytest.mark.parametrize(
    ('seeds', 'message'),
    [
        (range(0, 50), 'seeds 0 to 49 are for training .0 to 99999.; choose 900000 or more'),
        (range(99_990, 100_010), 'seeds 99990 to 99999 are for training'),
        (range(199_999, 200_001), 'seeds 199999 to 199999 are for validation'),
        (range(-5, 5), 'seed -5 is negative'),
    ],
)
def test_evaluation_keeps_off_what_training_saw(seeds, message):
    with pytest.raises(ConfigError, match=message):
        check_evaluation_seeds(seeds)


def test_what_nobody_has_seen_is_fair():
    check_evaluation_seeds(range(HELD_OUT_FROM, HELD_OUT_FROM + 50))
    check_evaluation_seeds(range(200_000, 200_050))
    check_training_seeds(range(0, 100))
    check_training_seeds(VALIDATION_SEEDS)


def test_training_keeps_off_what_is_held_out():
    with pytest.raises(ConfigError, match='seed 900000 is held out for evaluation'):
        check_training_seeds(range(899_990, 900_001))
    with pytest.raises(ConfigError, match='seed -1 is negative'):
        check_training_seeds(range(-1, 4))
