"""Jobs into a data set: in order, once each, failures left out."""

import importlib.util
from contextlib import closing

import numpy as np
import pytest

from vla_trt_ros.errors import VlaError

pytest.importorskip('pyarrow', reason="pip install '.[sim]'")

from takes import SHAPE, take

from vla_trt_ros.sim import recording
from vla_trt_ros.sim.dataset.layout import UNFINISHED
from vla_trt_ros.sim.dataset.reader import read_dataset
from vla_trt_ros.sim.dataset.staging import stage
from vla_trt_ros.sim.dataset.writer import DatasetWriter
from vla_trt_ros.sim.recording import Job, Outcome, Settings, missing, plan, record


def settings(root, stride=1, levels=1):
    return Settings(root, SHAPE, max_steps=250, stride=stride, levels=levels)


@pytest.fixture
def outcomes(monkeypatch):
    """Jobs that are done without a simulator, the last one first; scene 'broken' always fails."""

    def run(job_settings, jobs, workers):
        for job in reversed(jobs):
            if job.scene == 'broken':
                yield Outcome(job, None, 'not solved in 250 steps')
            else:
                made = take(job.scene, job.seed, noise=job.noise)
                yield Outcome(job, stage(job_settings.root, SHAPE, made))

    monkeypatch.setattr(recording, '_outcomes', run)


def test_scenes_take_turns_and_levels_follow_the_seed():
    jobs = plan(['reach', 'push', 'reach'], range(4, 6), [0.0, 0.3, 0.6])
    assert jobs == [
        Job('reach', 4, 0.3),
        Job('push', 4, 0.3),
        Job('reach', 5, 0.6),
        Job('push', 5, 0.6),
    ]


def test_every_level_begins_at_every_step():
    """With as many noise levels as steps between frames, each pair of both still comes."""
    of = settings(None, stride=3, levels=3)
    assert len({(seed % 3, of.phase(seed)) for seed in range(9)}) == 9


def test_episodes_stand_as_planned_whoever_was_first(tmp_path, outcomes):
    jobs = plan(['reach', 'broken', 'push'], range(2), [0.3])
    with DatasetWriter(tmp_path, SHAPE) as writer:
        seen = [o.job for o in record(writer, settings(tmp_path), jobs)]
        assert writer.failed.keys() == {('broken', 0), ('broken', 1)}
        assert missing(jobs, writer) == []
    assert seen == jobs[::-1]
    stored = [(e.scene, e.seed) for e in read_dataset(tmp_path)]
    assert stored == [('reach', 0), ('push', 0), ('reach', 1), ('push', 1)]


def test_files_are_closed_when_they_are_large(tmp_path, outcomes, monkeypatch):
    monkeypatch.setattr(recording, 'FILE_MB', 0)
    jobs = plan(['reach'], range(3), [0.3])
    with DatasetWriter(tmp_path, SHAPE) as writer:
        list(record(writer, settings(tmp_path), jobs))
    assert len(list((tmp_path / 'data').rglob('*.parquet'))) == 3


def test_a_recording_that_was_left_goes_on(tmp_path, outcomes):
    jobs = plan(['reach'], range(5), [0.3])
    with DatasetWriter(tmp_path, SHAPE) as writer:
        running = record(writer, settings(tmp_path), jobs)
        with closing(running):
            for _ in range(2):
                next(running)
    assert (tmp_path / UNFINISHED).is_dir()
    with DatasetWriter(tmp_path, SHAPE) as writer:
        assert writer.recorded == {('reach', 3), ('reach', 4)}
        left = missing(jobs, writer)
        assert [job.seed for job in left] == [0, 1, 2]
        list(record(writer, settings(tmp_path), left))
    assert [e.seed for e in read_dataset(tmp_path)] == [3, 4, 0, 1, 2]
    assert not (tmp_path / UNFINISHED).exists()


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def run(job_settings, jobs, workers):
        yield Outcome(jobs[0], stage(job_settings.root, SHAPE, take()))
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(recording, '_outcomes', run)
    jobs = plan(['reach'], range(2), [0.3])
    with (
        DatasetWriter(tmp_path, SHAPE) as writer,
        pytest.raises(VlaError, match='No space left on device. What was recorded so far is safe'),
    ):
        list(record(writer, settings(tmp_path), jobs))
    with DatasetWriter(tmp_path, SHAPE) as writer:
        assert missing(jobs, writer) == jobs[1:]


def test_the_teachers_own_frames_arrive(tmp_path):
    """One true episode: what is stored is what the simulator gave, its label row 0 the action."""
    if importlib.util.find_spec('metaworld') is None:
        pytest.skip("pip install '.[sim]'")
    from vla_trt_ros.sim.demonstrations import record_episode
    from vla_trt_ros.sim.metaworld import MetaWorld

    size = {'width': 48, 'height': 48}
    shape = recording.Layout('metaworld', 5, ('base', 'wrist'), 48, 48, SHAPE.joints, 10)
    ours = Settings(tmp_path, shape, max_steps=250, stride=4)
    with DatasetWriter(tmp_path, shape) as writer:
        list(record(writer, ours, [Job('reach', 3, 0.3)], workers=1))
    (stored,) = read_dataset(tmp_path)
    env = MetaWorld('reach', **size)
    episode = record_episode(env, seed=3, noise=0.3, stride=4, phase=ours.phase(3))
    env.close()
    assert stored.prompt == episode.prompt
    assert len(stored) == len(episode.frames) > 5
    for i, frame in enumerate(episode.frames):
        np.testing.assert_array_equal(stored.expert_chunk[i], frame.label)
        np.testing.assert_array_equal(stored.action[i], frame.label[0])
        np.testing.assert_array_equal(stored.executed[i], frame.executed)
        np.testing.assert_array_equal(stored.state[i], frame.state)
        for view, image in frame.images.items():
            np.testing.assert_array_equal(stored.image(view, i), image)
    assert not np.array_equal(stored.executed, stored.action)  # it was disturbed


def test_a_task_that_is_not_solved_in_time(tmp_path):
    if importlib.util.find_spec('metaworld') is None:
        pytest.skip("pip install '.[sim]'")
    shape = recording.Layout('metaworld', 20, ('base', 'wrist'), 32, 32, SHAPE.joints, 10)
    ours = Settings(tmp_path, shape, max_steps=3, stride=1)
    with DatasetWriter(tmp_path, shape) as writer:
        (outcome,) = record(writer, ours, [Job('reach', 0, 0.0)], workers=1)
        assert outcome.reason == 'not solved in 3 steps'
        assert writer.failed == {('reach', 0): 'not solved in 3 steps'}
        assert writer.episodes == 0
