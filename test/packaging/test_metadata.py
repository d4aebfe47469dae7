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


def ros_imports():
    """Top-level modules that nodes/ and launch/ import, less Python's, ours and NumPy."""
    found = set()
    for path in [*(ROOT / 'vla_trt_ros/nodes').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split('.')[0])
    return found - sys.stdlib_module_names - {'vla_trt_ros', 'numpy'}


def test_ros_packages_that_nodes_import_are_declared():
    declared = {e.text for tag in ('depend', 'exec_depend') for e in PACKAGE.iter(tag)}
    assert ros_imports() - declared == set()


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
