"""`pip install`: our modules, plus what CMakeLists.txt makes of msg/ and srv/.

Metadata is in pyproject.toml. colcon does not read this file: it runs CMakeLists.txt itself.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NAME = 'vla_trt_ros'
ROOT = Path(__file__).resolve().parent
GENERATED = ('msg', 'srv')


class BuildMessages(build_ext):
    """Runs CMakeLists.txt into a staging folder and takes the files over from there."""

    def run(self):
        """Build, then copy into the wheel, or into the source of an editable install."""
        stage = self.build_messages()
        package = ROOT / NAME if self.inplace else Path(self.build_lib) / NAME
        made = stage / 'python' / NAME
        for folder in GENERATED:
            shutil.rmtree(package / folder, ignore_errors=True)
            shutil.copytree(made / folder, package / folder)
        for old in package.glob('*.so'):
            old.unlink()
        for library in made.glob('*.so'):
            shutil.copy2(library, package)
        # lib/ and share/ go to the same folders of the environment, and leave with an uninstall.
        for path in sorted(p for top in ('lib', 'share') for p in (stage / top).rglob('*')):
            if path.is_file():
                folder = str(path.parent.relative_to(stage))
                self.distribution.data_files.append((folder, [str(path)]))
        # setuptools leaves data_files out of an editable install unless it hears of them here.
        self.distribution.has_data = lambda: True

    def build_messages(self) -> Path:
        """Configure, build and install into the staging folder, and return that folder."""
        prefixes = ros_prefixes()
        build = Path(self.build_temp).resolve() / 'cmake'
        stage = Path(self.build_temp).resolve() / 'stage'
        shutil.rmtree(stage, ignore_errors=True)
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
        configure = ['cmake', '-S', str(ROOT), '-B', str(build), *defines]
        subprocess.run(configure, env=env, check=True)
        jobs = str(os.cpu_count() or 2)
        install = ['cmake', '--build', str(build), '--target', 'install', '--parallel', jobs]
        subprocess.run(install, env=env, check=True)
        return stage

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


setup(
    packages=find_packages(
        include=[NAME, f'{NAME}.*'], exclude=[f'{NAME}.{part}*' for part in GENERATED]
    ),
    data_files=[],
    # No C source of its own: it marks the wheel as one for this platform and Python.
    ext_modules=[Extension(f'{NAME}.messages', sources=[])],
    cmdclass={'build_ext': BuildMessages},
)
