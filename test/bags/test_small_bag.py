"""The bag in the repository is what its README says."""

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import ROBOT, STEP_NS

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.camera.decode import to_rgb

BAG = Path(__file__).parents[1] / 'data' / 'reach_bag'


def test_it_is_small_and_whole():
    assert sum(p.stat().st_size for p in BAG.iterdir()) < 5_000_000
    bag = open_bag([BAG], ROBOT)
    events = list(bag.events())
    assert len(events) == bag.messages
    assert bag.notes() == []
    assert bag.kinds == {'camera', 'joints', 'command', 'prompt'}
    states = [e.payload for e in events if e.kind == 'joints']
    commands = [e.payload for e in events if e.kind == 'command']
    assert len(states) == len(commands) > 30
    assert {b.stamp_ns - a.stamp_ns for a, b in itertools.pairwise(states)} == {STEP_NS}
    # The hand goes where it is sent, and comes near.
    assert np.abs(commands[0].positions[0, :3] - states[0].positions[:3]).max() > 0.07
    assert np.abs(commands[-1].positions[0, :3] - states[-1].positions[:3]).max() < 0.04
    pictures = [to_rgb(e.payload) for e in events if e.kind == 'camera']
    assert all(p.shape == (224, 224, 3) and p.std() > 20 for p in pictures)
