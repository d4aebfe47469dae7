"""package.xml, pyproject.toml, CMakeLists.txt and constraints.txt tell one story."""

import ast
import re
import sys
from xml.etree import ElementTree

import pytest
import tomllib
from installing import ROOT
from packaging.requirements import Requirement

PYPROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()
PINS = dict(
    line.split('==')
    for line in (ROOT / 'constraints.txt').read_text().lower().splitlines()
    if '==' in line
)


def requirements():
    project = PYPROJECT['project']
    yield from PYPROJECT['build-system']['requires']
    yield from project['dependencies']
    for extra in project['optional-dependencies'].values():
        yield from extra


def test_version_name_and_licence_agree():
    project = PYPROJECT['project']
    assert PACKAGE.findtext('name') == project['name'] == 'vla_trt_ros'
    assert PACKAGE.findtext('version') == project['version']
    assert PACKAGE.findtext('license') == project['license'] == 'Apache-2.0'
    assert PACKAGE.findtext('description') == project['description']
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()


@pytest.mark.parametrize('text', sorted(set(requirements())))
def test_pinned_version_is_in_the_range(text):
    wanted = Requirement(text)
    pin = PINS.get(wanted.name.lower())
    assert pin, f'constraints.txt has no line for {wanted.name}'
    assert wanted.specifier.contains(pin), f'{wanted} does not take {pin}'


def test_packages_named_by_messages_are_declared():
    """Each package whose types .msg and .srv files use is a dependency for CMake and for ROS."""
    files = [*(ROOT / 'msg').glob('*.msg'), *(ROOT / 'srv').glob('*.srv')]
    code = [line.split('#')[0] for f in files for line in f.read_text().splitlines()]
    used = {m[1] for line in code if (m := re.match(r'([a-z_]+)/[A-Z]', line))}
    assert used >= {'std_msgs', 'builtin_interfaces'}
    cmake = (ROOT / 'CMakeLists.txt').read_text()
    declared = set(re.search(r'DEPENDENCIES ([a-z_ ]+)', cmake)[1].split())
    assert used | {'service_msgs'} == declared
    assert declared <= {element.text for element in PACKAGE.iter('depend')}
    assert {
        m[1] for m in re.finditer(r'find_package\((\w+_msgs|\w+_interfaces) ', cmake)
    } == declared


def imports(*paths):
    """Top-level modules that files import, less Python's own and ours."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split('.')[0])
    return found - sys.stdlib_module_names - {'vla_trt_ros'}


def modules_of(*texts):
    """The modules that requirements bring, by the names that differ from the requirement's."""
    other = {
        'opencv-python-headless': 'cv2',
        'pillow': 'PIL',
        'pyyaml': 'yaml',
        'hf-libero': 'libero',
    }
    names = {Requirement(text).name.lower() for text in texts}
    return {other.get(name, name) for name in names}


def test_ros_packages_that_nodes_import_are_declared():
    declared = {e.text for tag in ('depend', 'exec_depend') for e in PACKAGE.iter(tag)}
    paths = [*(ROOT / 'vla_trt_ros/nodes').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]
    assert imports(*paths) - declared - modules_of(*PYPROJECT['project']['dependencies']) == set()


@pytest.mark.parametrize(
    ('folders', 'extras'),
    [
        (('actions', 'camera', 'perception', 'policies', 'preprocess', '.'), ()),
        (('sim', 'viz'), ('sim', 'libero')),
        (('bags',), ('bags',)),
        (('conversion',), ('bags', 'frames')),
        (('export',), ('export', 'frames', 'detectors')),
        (('policies/pi05/cuda',), ('cuda-graph',)),
    ],
)
def test_what_a_folder_imports_is_required(folders, extras):
    """Base requirements for what a robot runs; an extra for the simulator and the workshop."""
    project = PYPROJECT['project']
    declared = modules_of(
        *project['dependencies'],
        *(text for extra in extras for text in project['optional-dependencies'][extra]),
    )
    package = ROOT / 'vla_trt_ros'
    paths = [
        path
        for folder in folders
        for path in ((package / folder).rglob('*.py') if folder != '.' else package.glob('*.py'))
        if folder.endswith('cuda') or 'pi05/cuda' not in path.as_posix()  # an extra of its own
    ]
    # lerobot is asked for when its data are read, and chooses its own torch, which brings triton.
    brought = {'lerobot', 'triton'}
    assert imports(*paths) - declared - brought == set()


@pytest.mark.parametrize('path', sorted((ROOT / 'scripts').iterdir()), ids=lambda p: p.name)
def test_executable_calls_a_module_that_exists(path):
    text = path.read_text()
    assert text.startswith('#!/usr/bin/env python3\n')
    module = re.search(r'^from ([\w.]+) import main$', text, re.MULTILINE)[1]
    target = (ROOT / module.replace('.', '/')).with_suffix('.py')
    assert target.is_file()
    assert re.search(r'^def main\(', target.read_text(), re.MULTILINE)


def test_no_setup_cfg():
    """ament_cmake_python would take one up for its own step and fail on it."""
    assert not (ROOT / 'setup.cfg').exists()
