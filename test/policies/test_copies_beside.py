"""What the first stage of a chain does not read is copied to the GPU while that stage runs."""

import numpy as np
import pytest
from gpu_stand_in import RacingCuda
from stage_stand_ins import InsideStage, engines

from vla_trt_ros.backends.captured_chain import BesideCopies, CapturedChain
from vla_trt_ros.gpu import cuda

SEEDS = range(20)
KEY = (2, 4, 5)  # views, prompt bucket, steps
COPIES = 3  # tokens, mask, noise


@pytest.fixture
def race(monkeypatch):
    """Runs a chain on a GPU of a seed: its actions, and in which order copies and stages ran."""

    def run(seed, launches=3):
        gpu = RacingCuda(seed)
        monkeypatch.setattr(cuda, 'runtime', lambda: gpu)
        made = engines(
            lambda *words: InsideStage(gpu, *words), cuda.pinned, on_gpu=True, compacts=True
        )
        found = []
        with CapturedChain(made.stages(KEY), on_gpu={'pixels'}) as chain:
            gpu.ran.clear()
            for i in range(launches):
                made.chains[4].tokens[:] = i
                made.chains[4].mask[:] = True
                made.noise[0] = 0.5 + i
                chain.launch()
                chain.wait()
                found.append(made.actions[0].copy())
        return np.array(found), gpu.ran

    return run


def test_copies_race_with_the_first_stage_and_are_there_for_the_second(race):
    begins = set()
    for seed in SEEDS:
        found, ran = race(seed)
        for i, actions in enumerate(found):
            np.testing.assert_array_equal(actions, 5 * (0.5 + i) + 4 * i)
        begins.update(ran[at] for at in range(0, len(ran), COPIES + 4))  # 3 stages, 1 download
    assert begins == {'upload', 'engine'}


def test_the_second_stage_has_to_wait_for_them(race, monkeypatch):
    monkeypatch.setattr(BesideCopies, 'end', lambda self, stream: None)
    with pytest.raises(AssertionError, match='not joined'):
        race(0)


def test_they_are_part_of_the_graph(race, monkeypatch):
    """Copies of no captured stream would overwrite what a launch before still reads."""
    monkeypatch.setattr(cuda.Event, 'hold', lambda self, stream: None)
    with pytest.raises(AssertionError, match='not captured'):
        race(0)
