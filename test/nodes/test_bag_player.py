"""A bag over topics to a real policy node gives the chunks that a replay in process gives."""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import (
    BASE,
    BEGIN_NS,
    IMAGE,
    JOINTS,
    STATES,
    TEXT,
    WRIST,
    Script,
    image,
    make,
    states,
)

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import find_file, load_platform, load_policy, load_robot
from vla_trt_ros.errors import BackendError
from vla_trt_ros.loading import load_pipeline
from vla_trt_ros.nodes.bag_player import Player
from vla_trt_ros.nodes.replay_node import policy_process
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.replay.drive import Drive

pytestmark = pytest.mark.ros

MS = 1_000_000
ROBOT = load_robot('metaworld')
BUNDLE = open_bundle(find_file('bundles', 'nano', ''))
POLICY = replace(load_policy('pi05'), num_steps=3, seed=11)
ROUNDS = 10


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """Cameras 3 ms apart, joint states at 50 Hz around them, a new prompt half way."""
    script = Script()
    rng = np.random.default_rng(0)
    script.add('policy/prompt', TEXT, BEGIN_NS, make(TEXT, 'push the puck to the goal'))
    for k in range(ROUNDS):
        ns = BEGIN_NS + (k + 1) * 60 * MS
        if k == ROUNDS // 2:
            prompt = make(TEXT, 'open the drawer')
            script.add('policy/prompt', TEXT, ns - 15 * MS, prompt)
        for offset in (-30 * MS, -10 * MS, 10 * MS):
            share = rng.uniform(0.3, 0.7, 4)
            low = np.array([j.lower for j in ROBOT.joints])
            high = np.array([j.upper for j in ROBOT.joints])
            values = low + share * (high - low)
            stamp = ns + offset
            script.add(JOINTS, STATES, stamp + MS, states(stamp, values))
        for topic, lag, shade in ((BASE, 4, 20 * k), (WRIST, 7, 20 * k + 9)):
            picture = image(ns - lag * MS, shade)
            picture.data[:] = rng.integers(0, 256, picture.data.size)
            script.add(topic, IMAGE, ns + 12 * MS + lag, picture)
    return open_bag([script.write(tmp_path_factory.mktemp('bag') / 'b')], ROBOT)


def in_process(bag):
    pipeline = load_pipeline(robot='metaworld', num_steps=3)
    try:
        pipeline.reset()
        pipeline.policy.reseed(POLICY.seed)
        return [t for _, t in Drive(pipeline).run(bag.events()) if t is not None]
    finally:
        pipeline.policy.close()


def over_topics(bag, *, paced):
    views = read_config(BUNDLE).views
    with ExitStack() as stack:
        node = stack.enter_context(
            policy_process(ROBOT, load_platform('cpu'), POLICY, BUNDLE.path, 'reach the goal')
        )
        player = stack.enter_context(
            Player(ROBOT, BUNDLE, node, views=views, paced=paced, follow_prompts=True)
        )
        found = [t for _, t in player.run(bag.events()) if t is not None]
        return found, player.counts


def test_frame_by_frame_action_by_action(bag):
    expected = in_process(bag)
    found, counts = over_topics(bag, paced=False)
    assert counts['unanswered'] == 0
    assert len(found) == len(expected) == ROUNDS
    for k, (here, there) in enumerate(zip(expected, found, strict=True)):
        ours, theirs = here.result.chunk, there.result.chunk
        assert ours.observation_ns == theirs.observation_ns, k
        assert ours.prompt_hash == theirs.prompt_hash, k
        assert ours.actions.tobytes() == theirs.actions.tobytes(), k
        assert ours.chunk_id == theirs.chunk_id == k
        assert there.prompt == here.prompt
        assert {v: f.stamp_ns for v, f in here.frames.items()} == {
            v: f.stamp_ns for v, f in there.frames.items()
        }
    assert len({t.result.chunk.actions.tobytes() for t in found}) == ROUNDS
    assert len({t.result.chunk.prompt_hash for t in found}) == 2


def test_at_its_own_pace_the_node_uses_frames_of_the_bag_in_their_order(bag):
    found, counts = over_topics(bag, paced=True)
    stamps = [t.result.chunk.observation_ns for t in found]
    assert stamps == sorted(set(stamps))
    recorded = {e.payload.stamp_ns for e in bag.events('camera')}
    assert set(stamps) <= recorded
    assert len(found) >= 2
    # Simulated time is that of the bag: published after the exposure, not years later.
    assert all(0 < t.ready_ns - t.result.chunk.start_ns < 2_000 * MS for t in found)
    assert counts['frames_sent'] <= 2 * ROUNDS
    assert counts['frames_sent'] >= 2 * len(found)


def test_node_that_cannot_start_says_why(bag):
    with (
        pytest.raises(BackendError, match='ended with status 1.*does not exist'),
        policy_process(
            ROBOT, load_platform('cpu'), POLICY, BUNDLE.path / 'nothing', 'reach the goal'
        ) as node,
        Player(ROBOT, BUNDLE, node, views=('base', 'wrist'), paced=False, follow_prompts=True),
    ):
        pass
