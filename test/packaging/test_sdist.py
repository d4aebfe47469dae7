"""The source archive holds all that a build from it reads."""

import sys
import tarfile

import pytest
from installing import run

pytestmark = [pytest.mark.packaging, pytest.mark.ros]


def test_archive_has_what_the_build_reads(source, tmp_path):
    build = [sys.executable, '-m', 'build', '--sdist', '--no-isolation', '-o', tmp_path]
    run([*build, source], cwd=tmp_path)
    (archive,) = tmp_path.glob('*.tar.gz')
    with tarfile.open(archive) as tar:
        names = {name.partition('/')[2] for name in tar.getnames()}
    folders = ('msg', 'srv', 'cmake', 'interfaces', 'scripts', 'launch', 'config', 'bundles')
    wanted = {
        str(path.relative_to(source))
        for folder in (*folders, 'vla_trt_ros')
        for path in (source / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    wanted |= {'CMakeLists.txt', 'package.xml', 'setup.py', 'pyproject.toml', 'LICENSE'}
    assert wanted - names == set()
    assert [name for name in names if name.endswith('.so')] == []
