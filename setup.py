"""`pip install`: our modules, plus what CMakeLists.txt makes of msg/ and srv/.

Metadata is in pyproject.toml. colcon does not read this file: it runs CMakeLists.txt itself.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NAME = 'vla_trt_ros'
ROOT = Path(__file__).resolve().parent
GENERATED = ('msg', 'srv')
VISION = 'vision_msgs'


class BuildMessages(build_ext):
    """Runs CMake into a staging folder and takes the files over from there."""

    def run(self):
        """Build, then copy into the wheel, or into the source of an editable install."""
        prefixes = ros_prefixes()
        stage = Path(self.build_temp).resolve() / 'stage'
        shutil.rmtree(stage, ignore_errors=True)
        self.build_messages(ROOT, stage, prefixes)
        package = ROOT / NAME if self.inplace else Path(self.build_lib) / NAME
        made = stage / 'python' / NAME
        for folder in GENERATED:
            shutil.rmtree(package / folder, ignore_errors=True)
            shutil.copytree(made / folder, package / folder)
        for old in package.glob('*.so'):
            old.unlink()
        for library in made.glob('*.so'):
            shutil.copy2(library, package)
        if ros_lacks(VISION, prefixes):
            self.build_messages(ROOT / 'interfaces' / VISION, stage, prefixes)
            self.take(stage / 'python' / VISION, stage / 'python', site_packages())
        # lib/ and share/ go to the same folders of the environment, and leave with an uninstall.
        for top in ('lib', 'share'):
            self.take(stage / top, stage, Path())
        # setuptools leaves data_files out of an editable install unless it hears of them here.
        self.distribution.has_data = lambda: True

    def take(self, folder: Path, base: Path, to: Path) -> None:
        """Files of ``folder``, to where they lie from ``base``, under ``to`` in the prefix."""
        for path in sorted(p for p in folder.rglob('*') if p.is_file()):
            where = str(to / path.parent.relative_to(base))
            self.distribution.data_files.append((where, [str(path)]))

    def build_messages(self, source: Path, stage: Path, prefixes: list[str]) -> None:
        """Configure, build and install ``source`` into ``stage``."""
        build = Path(self.build_temp).resolve() / f'cmake-{source.name}'
        env = dict(os.environ, AMENT_PREFIX_PATH=os.pathsep.join(prefixes))
        options = {
            'CMAKE_BUILD_TYPE': 'Release',
            'BUILD_TESTING': 'OFF',
            'Python3_EXECUTABLE': sys.executable,
            'CMAKE_PREFIX_PATH': ';'.join(prefixes),
            'CMAKE_INSTALL_PREFIX': str(stage),
            'PYTHON_INSTALL_DIR': 'python',
        }
        defines = [f'-D{key}={value}' for key, value in options.items()]
        configure = ['cmake', '-S', str(source), '-B', str(build), *defines]
        subprocess.run(configure, env=env, check=True)
        jobs = str(os.cpu_count() or 2)
        install = ['cmake', '--build', str(build), '--target', 'install', '--parallel', jobs]
        subprocess.run(install, env=env, check=True)

    def get_outputs(self):
        """None: the extension below stands for the whole CMake build."""
        return []

    def get_output_mapping(self):
        """Nothing is to be linked back in an editable install; the files are in place already."""
        return {}


def ros_prefixes() -> list[str]:
    """Prefix of the ROS that this Python sees, then whatever AMENT_PREFIX_PATH holds."""
    # sys.prefix is wrong in pip's isolated build folder; where rosidl lies is right everywhere.
    found = importlib.util.find_spec('rosidl_adapter')
    if found is None or found.origin is None:
        raise SystemExit(
            'rosidl_adapter was not found: source a ROS distribution, or install the packages of '
            '[build-system] in pyproject.toml, then try again.'
        )
    prefixes = [str(Path(found.origin).resolve().parents[4])]
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix and prefix not in prefixes:
            prefixes.append(prefix)
    return prefixes


def ros_lacks(package: str, prefixes: list[str]) -> bool:
    """No prefix has it, or only by what an installation of this package left there."""
    shares = [Path(prefix) / 'share' / package for prefix in prefixes]
    return not any(
        (share / 'package.xml').is_file() and not (share / 'built_by_vla_trt_ros').is_file()
        for share in shares
    )


def site_packages() -> Path:
    """The folder of Python packages, from the prefix that data files are installed under."""
    return Path(sysconfig.get_path('platlib')).relative_to(sysconfig.get_path('data'))


setup(
    packages=find_packages(
        include=[NAME, f'{NAME}.*'], exclude=[f'{NAME}.{part}*' for part in GENERATED]
    ),
    data_files=[],
    # No C source of its own: it marks the wheel as one for this platform and Python.
    ext_modules=[Extension(f'{NAME}.messages', sources=[])],
    cmdclass={'build_ext': BuildMessages},
)
