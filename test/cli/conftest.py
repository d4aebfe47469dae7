"""One bag and one replay of it for the tests of vla-trt replay."""

import pytest

PAIRS = 24


@pytest.fixture(scope='module')
def replay_bag(tmp_path_factory):
    bag_files = pytest.importorskip('bag_files', reason="pip install 'vla_trt_ros[bags]'")
    return bag_files.Script().steps(PAIRS).write(tmp_path_factory.mktemp('bags') / 'one')


@pytest.fixture(scope='module')
def shared_engines():
    """Loads the engines of a bundle once for all tests of a file."""
    from vla_trt_ros.replay import session

    load, loaded = session.load_pipeline, {}

    def cached(**options):
        key = (options['bundle'], options['platform'])
        if key not in loaded:
            loaded[key] = load(**options)
            loaded[key].policy.close = lambda: None
        return loaded[key]

    session.load_pipeline = cached
    yield
    session.load_pipeline = load


@pytest.fixture(scope='module')
def whole_replay(replay_bag, shared_engines, tmp_path_factory):
    """A replay at 1 and 3 steps: its folder."""
    from vla_trt_ros.cli.main import main

    out = tmp_path_factory.mktemp('replay') / 'out'
    assert main(['replay', str(replay_bag), '--steps', '1,3', '--out', str(out)]) == 0
    return out
