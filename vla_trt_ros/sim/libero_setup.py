"""LIBERO made ready to import: OpenGL chosen, its first question answered, its meshes there."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from vla_trt_ros.errors import BackendError
from vla_trt_ros.sim.gl import choose_gl
from vla_trt_ros.sim.libero_tasks import INSTALL, package_dir

VARIABLE = 'LIBERO_CONFIG_PATH'
_MODULES = ('mujoco', 'robosuite', 'bddl', 'torch', 'libero')
_ASSETS = ('articulated_objects', 'scenes', 'stable_scanned_objects', 'textures')


def import_libero() -> Any:
    """The package ``libero.libero``, imported without a question asked.

    BackendError where a package, OpenGL or LIBERO's meshes are missing. On first use hf-libero
    fetches the meshes from the Hugging Face Hub, which needs a network.
    """
    choose_gl(_MODULES, INSTALL)
    package = package_dir()
    answer_question(package)
    # Three lines in every process on a file of preferences that nobody needs.
    logging.getLogger('robosuite_logs').addFilter(lambda line: 'macro' not in line.getMessage())
    import libero.libero as library

    assets = Path(library.get_assets_path())
    missing = [name for name in _ASSETS if not (assets / name).is_dir()]
    if missing:
        raise BackendError(
            f"LIBERO's {', '.join(missing)} are not in {assets}. hf-libero fetches them once from "
            'the Hugging Face Hub (data set lerobot/libero-assets) into ~/.cache/libero/assets: '
            'run it once with a network, or copy that folder from a machine that has it.'
        )
    return library


def answer_question(package: Path) -> None:
    """Let LIBERO find its own files in ``package``.

    Without a config.yaml, importing LIBERO asks on the terminal where data sets go. A config.yaml
    that you have is used; otherwise one is written in our cache, not in your home.
    """
    if VARIABLE in os.environ:
        folder = Path(os.environ[VARIABLE])
    else:
        folder = Path.home() / '.libero'
        if not (folder / 'config.yaml').is_file():
            cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
            place = hashlib.sha256(str(package).encode()).hexdigest()[:12]
            folder = Path(cache) / 'vla_trt_ros' / f'libero-{place}'
            os.environ[VARIABLE] = str(folder)
    path = folder / 'config.yaml'
    if not path.is_file():
        _write(path, package)
    _check(path)


def _write(path: Path, package: Path) -> None:
    places = {
        'benchmark_root': package,
        'bddl_files': package / 'bddl_files',
        'init_states': package / 'init_files',
        'datasets': package.parent / 'datasets',
        'assets': package / 'assets',
    }
    text = yaml.safe_dump({name: str(place) for name, place in places.items()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may start at once: each puts a whole file in place.
        with tempfile.NamedTemporaryFile(
            'w', dir=path.parent, delete=False, encoding='utf-8'
        ) as file:
            file.write(text)
        os.replace(file.name, path)
    except OSError as error:
        raise BackendError(
            f'{path} cannot be written ({error.strerror}): set {VARIABLE} to a folder of yours.'
        ) from error


def _check(path: Path) -> None:
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
        places = [Path(data[name]) for name in ('bddl_files', 'init_states')]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise BackendError(
            f'{path} is no configuration of LIBERO ({error}): delete it.'
        ) from error
    for place in places:
        if not place.is_dir():
            raise BackendError(f'{path} names {place}, which does not exist: delete the file.')
