"""Names, words, limits and installed files of LIBERO's tasks, without LIBERO."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from vla_trt_ros.errors import BackendError, ConfigError
from vla_trt_ros.sim import libero_setup, libero_tasks
from vla_trt_ros.sim.libero_suite import LIBERO
from vla_trt_ros.sim.suites import load_suite

SPATIAL = [f'pick_up_bowl_{i}' for i in range(9)] + ['open_the_drawer']
TABLE = {
    'libero_spatial': SPATIAL,
    'libero_object': [f'pick_up_box_{i}' for i in range(10)],
    'libero_goal': [f'push_plate_{i}' for i in range(9)] + ['turn_on_the_stove'],
    'libero_10': [f'LIVING_ROOM_SCENE{i}_put_both_{i}_in_the_basket' for i in range(10)],
    'libero_90': ['KITCHEN_SCENE3_turn_on_the_stove', *(f'STUDY_SCENE1_x_{i}' for i in range(89))],
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder laid out as hf-libero is, which fails when it is imported."""
    inner = tmp_path / 'site' / 'libero' / 'libero'
    for folder in ('benchmark', 'bddl_files', 'init_files'):
        (inner / folder).mkdir(parents=True)
    (inner.parent / '__init__.py').write_text('raise RuntimeError("imported")')
    write_table(inner, TABLE)
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    monkeypatch.delitem(sys.modules, 'libero', raising=False)
    return inner


def write_table(inner, table):
    path = inner / 'benchmark' / 'libero_suite_task_map.py'
    path.write_text(f'libero_task_map = {table!r}\n', encoding='utf-8')


@pytest.fixture
def unasked(tmp_path, monkeypatch):
    """A home in which LIBERO was never used; what is set there ends with the test."""
    monkeypatch.setenv(libero_setup.VARIABLE, '')
    monkeypatch.delenv(libero_setup.VARIABLE)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path


@pytest.fixture
def no_libero(monkeypatch):
    monkeypatch.setattr(libero_tasks.importlib.util, 'find_spec', lambda name: None)


def test_a_suite_means_its_tasks_and_a_name_one():
    assert libero_tasks.tasks_of('libero_spatial') == tuple(
        f'libero_spatial/{i}' for i in range(10)
    )
    assert len(libero_tasks.tasks_of(' libero_90')) == 90
    assert libero_tasks.tasks_of('libero_90/89') == ('libero_90/89',)


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('libero_spatial/10', 'libero_spatial has tasks 0 to 9'),
        ('libero_spatial/-1', 'libero_spatial has tasks 0 to 9'),
        ('libero_spatial/', 'libero_spatial has tasks 0 to 9'),
        ('libero_spatial/01', 'libero_spatial has tasks 0 to 9'),
        ('libero_kitchen/3', "task 'libero_kitchen/3' is none of LIBERO; give a suite (libero_sp"),
        ('reach', "task 'reach' is none of LIBERO"),
    ],
)
def test_what_is_no_task_is_refused_without_libero(word, message, no_libero):
    with pytest.raises(ConfigError) as error:
        libero_tasks.tasks_of(word)
    assert message in str(error.value)


def test_words_name_a_task_and_scenes_are_no_words(package):
    assert libero_tasks.language_of('libero_spatial/9') == 'open the drawer'
    assert libero_tasks.language_of('libero_10/7') == 'put both 7 in the basket'
    assert libero_tasks.tasks_of('Put both 7 in the basket') == ('libero_10/7',)


def test_words_of_several_tasks_and_of_none(package):
    with pytest.raises(ConfigError, match='is several: choose one of libero_goal/9, libero_90/0'):
        libero_tasks.tasks_of('turn on the stove')
    with pytest.raises(ConfigError, match="did you mean 'open the drawer'"):
        libero_tasks.tasks_of('open the drawers')


def test_another_edition_of_libero_is_refused(package):
    write_table(package, {**TABLE, 'libero_goal': ['push_plate']})
    with pytest.raises(BackendError, match='has 1 tasks of libero_goal, not 10: install the hf-'):
        libero_tasks.language_of('libero_goal/0')


def test_without_libero_the_command_is_told(no_libero):
    with pytest.raises(BackendError, match=r'LIBERO is not installed: run `pip install .*libero'):
        libero_tasks.language_of('libero_goal/0')


def test_limits_are_openpis():
    limits = {suite: libero_tasks.max_steps_of(f'{suite}/0') for suite in libero_tasks.COUNTS}
    assert limits == {
        'libero_spatial': 220,
        'libero_object': 280,
        'libero_goal': 300,
        'libero_10': 520,
        'libero_90': 400,
    }
    assert (LIBERO.execute_rows, LIBERO.image_size) == (5, (256, 256))


def test_seeds_are_initial_states():
    assert load_suite('libero') is LIBERO
    LIBERO.check_seeds(range(LIBERO.first_seed, 50))
    LIBERO.check_seeds(range(0))
    with pytest.raises(ConfigError, match='seed 50: LIBERO has 50 initial states a task, 0 to 49'):
        LIBERO.check_seeds(range(45, 51))
    with pytest.raises(ConfigError, match='seed -1'):
        LIBERO.check_seeds(range(-1, 3))


def test_the_question_is_answered_in_our_cache(package, unasked):
    libero_setup.answer_question(package)
    path = Path(os.environ[libero_setup.VARIABLE]) / 'config.yaml'
    assert [p for p in unasked.joinpath('cache').rglob('*') if p.is_file()] == [path]
    places = yaml.safe_load(path.read_text(encoding='utf-8'))
    assert places['bddl_files'] == str(package / 'bddl_files')
    assert places['init_states'] == str(package / 'init_files')
    assert not unasked.joinpath('home').exists()


def test_a_configuration_of_ones_own_is_used_and_checked(package, unasked):
    own = unasked / 'home' / '.libero' / 'config.yaml'
    own.parent.mkdir(parents=True)
    own.write_text(f'{{bddl_files: {package}, init_states: {package}}}')
    libero_setup.answer_question(package)
    assert libero_setup.VARIABLE not in os.environ
    own.write_text(f'{{bddl_files: {package}, init_states: /nowhere/at/all}}')
    with pytest.raises(BackendError, match='names /nowhere/at/all, which does not exist: delete'):
        libero_setup.answer_question(package)
    own.write_text('bddl_files: 3')
    with pytest.raises(BackendError, match='is no configuration of LIBERO'):
        libero_setup.answer_question(package)
