"""The teacher, what disturbs it, and episodes with its labels."""

import numpy as np
import pytest

from vla_trt_ros.sim.disturbance import PUSH_LEAD, Disturbance

HAND = np.array([0.1, 0.6, 0.2])
TARGET = np.array([0.15, 0.65, 0.15, 1.0])


def altered(level, steps=400, seed=0):
    disturbance = Disturbance(level, np.random.default_rng(seed))
    return np.array([disturbance.alter(TARGET, HAND) for _ in range(steps)])


def test_level_0_alters_nothing():
    np.testing.assert_array_equal(altered(0.0), np.tile(TARGET, (400, 1)))


def test_pushes_lead_the_hand_and_slips_move_the_gripper():
    targets = altered(1.0)
    lead = np.linalg.norm(targets[:, :3] - HAND, axis=1)
    pushed = np.isclose(lead, PUSH_LEAD)
    assert 20 < pushed.sum() < 200
    assert (targets[pushed, :3] != targets[pushed, :3][0]).any()  # not always the same way
    assert {0.0, 1.0} == set(targets[:, 3].tolist())
    np.testing.assert_array_equal(altered(1.0), targets)
    assert (altered(1.0, seed=1) != targets).any()


@pytest.fixture
def pick_place(simulator):
    from vla_trt_ros.sim.metaworld import MetaWorld

    env = MetaWorld('pick-place', width=32, height=32)
    yield env
    env.close()


def whole_state(env):
    return np.concatenate([env.observe().positions, env.full_observation, env.hold_target()])


def test_what_is_imagined_is_undone_to_the_last_bit(pick_place):
    from vla_trt_ros.sim.teacher import Teacher

    walks = []
    for imagining in (False, True):
        pick_place.reset(5)
        teacher, states = Teacher(pick_place), []
        for _ in range(40):
            if imagining:
                before, pictures = whole_state(pick_place), pick_place.render()
                with pick_place.imagine():
                    for _ in range(10):
                        pick_place.apply(np.array([0.2, 0.8, 0.3, 0.0]))
                    assert (whole_state(pick_place) != before).any()
                np.testing.assert_array_equal(whole_state(pick_place), before)
                assert pick_place.steps == len(states)
                for name, picture in pick_place.render().items():
                    np.testing.assert_array_equal(picture, pictures[name])
            pick_place.apply(teacher.target())
            states.append(whole_state(pick_place))
        walks.append(np.array(states))
    np.testing.assert_array_equal(*walks)


def test_imagining_ends_also_where_the_block_raises(pick_place):
    before = whole_state(pick_place)

    def give_up():
        with pick_place.imagine():
            pick_place.apply(np.array([0.2, 0.8, 0.3, 0.0]))
            raise RuntimeError('enough')

    with pytest.raises(RuntimeError, match='enough'):
        give_up()
    np.testing.assert_array_equal(whole_state(pick_place), before)


def test_a_label_is_what_the_teacher_then_does(pick_place):
    from vla_trt_ros.sim.teacher import LEAD, Teacher

    pick_place.reset(7)
    teacher = Teacher(pick_place)
    for _ in range(20):
        pick_place.apply(teacher.target())
    label = teacher.chunk(10)
    done = []
    for _ in range(10):
        target = teacher.target()
        hand = pick_place.observe().positions[:3]
        assert np.abs(target[:3] - hand).max() <= LEAD + 1e-12
        done.append(target)
        pick_place.apply(target)
    np.testing.assert_array_equal(label, np.array(done, np.float32))


def test_an_episode_repeats_and_keeps_what_was_executed(pick_place):
    from vla_trt_ros.sim.demonstrations import ROWS, record_episode

    first = record_episode(pick_place, seed=3, noise=0.5, stride=4, phase=1)
    again = record_episode(pick_place, seed=3, noise=0.5, stride=4, phase=1)
    assert first.success
    assert (first.prompt, first.steps) == (again.prompt, again.steps)
    assert len(first.frames) == len(range(1, first.steps, 4))
    for one, two in zip(first.frames, again.frames, strict=True):
        np.testing.assert_array_equal(one.label, two.label)
        np.testing.assert_array_equal(one.images['wrist'], two.images['wrist'])
    frame = first.frames[0]
    assert frame.label.shape == (ROWS, 4)
    assert frame.label.dtype == frame.state.dtype == np.float32
    differ = [not np.allclose(f.executed, f.label[0], atol=1e-6) for f in first.frames]
    assert sum(differ) > len(differ) / 2  # disturbed on the way out, never in the label


def test_a_driver_has_the_arm_and_the_teacher_the_labels(pick_place):
    from vla_trt_ros.sim.demonstrations import record_episode

    asked = []

    def stay(images, state):
        asked.append((sorted(images), state.copy()))
        return [np.append(state[:3], 1.0)] * 3

    episode = record_episode(pick_place, seed=3, driver=stay, max_steps=12)
    assert not episode.success
    assert episode.steps == len(episode.frames) == 12
    assert len(asked) == 4  # three rows of each answer are executed
    assert all(names == ['base', 'wrist'] for names, _ in asked)
    last = episode.frames[-1]
    assert np.linalg.norm(last.executed[:3] - last.state[:3]) < 0.03  # stays
    assert np.linalg.norm(last.label[-1, :3] - last.state[:3]) > 0.05  # would not have
