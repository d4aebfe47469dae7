"""What doctor finds on a machine with a GPU, on one that only answers as nvidia-smi does."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from vla_trt_ros.cli import checks, gpu_checks
from vla_trt_ros.config import StageChoice, load_platform

GRAPH = StageChoice('cuda_graph', 'bf16')
PLATFORM = replace(load_platform('h200'), vision=GRAPH, prefix=GRAPH, denoise=GRAPH)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A GPU of sm_90 with 5,000 MiB free, and a bundle of one file of 3 MiB."""
    file = tmp_path / 'fast.bf16.safetensors'
    file.write_bytes(bytes(3 << 20))
    entries = [
        SimpleNamespace(target='sm_90', backend='cuda_graph', file=file.name) for _ in range(4)
    ]
    made = SimpleNamespace(
        capability='9.0', memory='5000 MiB, 143771 MiB', entries=entries, caches=tmp_path
    )
    bundle = SimpleNamespace(
        engines=lambda stage, backend, precision: entries, file=lambda name: tmp_path / name
    )

    def nvidia_smi(query=''):
        return made.capability if query == 'compute_cap' else made.memory

    monkeypatch.setattr(checks, 'nvidia_smi', nvidia_smi)
    monkeypatch.setattr(gpu_checks, 'open_bundle', lambda path: bundle)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path / 'triton'))
    return made


def found(platform=PLATFORM):
    return {f.name: (f.status, f.text) for f in gpu_checks.gpu('nano', platform)}


def test_memory_is_that_of_the_files_each_counted_once(machine):
    told = '5000 of 143771 MiB free, engine files alone take 3'
    assert found()['GPU memory'] == ('ok', told)
    machine.memory = '2 MiB, 143771 MiB'
    assert found()['GPU memory'][0] == 'fail'
    machine.memory = '[N/A], [N/A]'  # a GPU that shares the processor's memory
    assert 'GPU memory' not in found()


def test_engines_of_another_gpu(machine):
    assert found()['engine target'] == ('ok', 'engines run on this GPU (sm_90)')
    machine.capability = '8.7'
    status, text = found()['engine target']
    assert (status, text) == ('fail', 'engines are built for sm_90, this GPU is sm_87')


def test_caches(machine):
    kernels = machine.caches / 'cache' / 'vla_trt_ros' / 'kernels'
    assert found()['kernel cache'] == (
        'ok',
        f'{kernels} is empty: the first start compiles into it',
    )
    kernels.mkdir(parents=True)
    (kernels / 'images.cubin').write_bytes(bytes(1 << 20))
    assert found()['kernel cache'][1] == f'{kernels}: 1 files, 1.0 MiB'
    assert 'empty' in found()['Triton cache'][1]
    tensorrt = replace(
        PLATFORM, **dict.fromkeys(('vision', 'prefix'), StageChoice('tensorrt', 'bf16'))
    )
    assert 'Triton cache' in found(tensorrt)
    assert 'Triton cache' not in found(replace(tensorrt, denoise=tensorrt.vision))


@pytest.mark.parametrize(
    ('line', 'triton', 'status', 'text'),
    [
        ("cuda: str | None = '13.0'", True, 'ok', 'for CUDA 13.0, triton'),
        ("cuda = '12.8'", True, 'ok', 'for CUDA 12.8'),
        ("cuda: str | None = '13.0'", False, 'fail', 'triton is not importable'),
        ('cuda: str | None = None', True, 'fail', 'is built without CUDA'),
    ],
)
def test_torch(machine, monkeypatch, tmp_path, line, triton, status, text):
    (tmp_path / 'version.py').write_text(f"__version__ = '2.11.0'\n{line}\nhip = None\n")
    spec = SimpleNamespace(origin=str(tmp_path / '__init__.py'))
    there = {'torch': spec, 'triton': spec if triton else None}
    monkeypatch.setattr(gpu_checks.importlib.util, 'find_spec', lambda n: there.get(n, spec))
    got = found()['torch for CUDA']
    assert got[0] == status
    assert text in got[1]


def test_without_cuda_python(machine, monkeypatch):
    def find(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(gpu_checks.importlib.util, 'find_spec', find)
    tensorrt = replace(
        PLATFORM, **dict.fromkeys(('vision', 'prefix', 'denoise'), StageChoice('tensorrt', 'bf16'))
    )
    assert found(tensorrt)['cuda-python'] == (
        'fail',
        'cuda.bindings, cuda.core not importable',
    )


def test_nothing_to_say_on_a_processor(machine):
    assert found(load_platform('cpu')) == {}
