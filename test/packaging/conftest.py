"""A copy of the source to install from."""

import shutil

import pytest
from installing import ROOT, run


@pytest.fixture(scope='session')
def source(tmp_path_factory):
    """The files that git knows or would take, and nothing that a build has left here."""
    listed = run(
        ['git', '-c', 'safe.directory=*', 'ls-files', '-z', '-co', '--exclude-standard'], cwd=ROOT
    )
    to = tmp_path_factory.mktemp('src') / 'vla_trt_ros'
    for name in listed.split('\0'):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to
