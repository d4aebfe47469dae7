"""What the tests of this room share."""

import pytest

from vla_trt_ros.errors import BackendError
from vla_trt_ros.sim.gl import choose_gl


@pytest.fixture(scope='session')
def simulator():
    """Skips where Meta-World cannot run."""
    try:
        choose_gl()
    except BackendError as error:
        pytest.skip(str(error))
