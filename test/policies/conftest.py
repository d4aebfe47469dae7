"""The nano policy, loaded once."""

import pytest

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import load_platform, share_dir
from vla_trt_ros.policies.registry import load_policy_from


@pytest.fixture(scope='session')
def nano():
    return open_bundle(share_dir() / 'bundles' / 'nano')


@pytest.fixture(scope='session')
def policy(nano):
    loaded = load_policy_from(nano, load_platform('cpu'))
    yield loaded
    loaded.close()
