"""Our kernels compile for every GPU that we name, once, and say why where they do not."""

import sys

import pytest

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import kernels
from vla_trt_ros.preprocess.cuda.images import SOURCE

TARGETS = ('sm_86', 'sm_87', 'sm_89', 'sm_90', 'sm_110', 'sm_120')
TINY = 'extern "C" __global__ void zero(float* x) { x[threadIdx.x] = 0; }'


def has_nvrtc():
    try:
        from cuda.bindings import nvrtc

        return nvrtc.nvrtcVersion()[1] >= 13
    except Exception:
        return False


needs_nvrtc = pytest.mark.skipif(
    not has_nvrtc(), reason="needs NVRTC 13: pip install '.[tensorrt]' on x86_64"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'vla_trt_ros' / 'kernels'


@needs_nvrtc
@pytest.mark.parametrize('target', TARGETS)
def test_images_compile(target):
    code = kernels.cubin(SOURCE, target)
    assert code[:4] == b'\x7fELF'
    for name in (b'write_images_16', b'write_images_32'):
        assert name in code


@needs_nvrtc
def test_a_mistake_is_told_with_its_line():
    with pytest.raises(BackendError, match=r'(?s)bad.cu for sm_90:.*bad.cu\(2\).*nothing'):
        kernels.compile_source(TINY + '\n__device__ void f() { nothing; }', 'bad.cu', 'sm_90')


@needs_nvrtc
def test_a_gpu_that_the_compiler_does_not_know():
    with pytest.raises(BackendError, match=r'(?s)sm_999:.*does not know the GPU'):
        kernels.compile_source(TINY, 'tiny.cu', 'sm_999')


@pytest.fixture
def compiled(monkeypatch):
    """Calls of the compiler, which gives their number as machine code."""
    calls = []

    def compile_source(text, name, target):
        calls.append((text, target))
        return f'code {len(calls)}'.encode()

    monkeypatch.setattr(kernels, 'compile_source', compile_source)
    return calls


def test_compiled_once_for_each_source_and_target(tmp_path, compiled):
    file = tmp_path / 'a.cu'
    file.write_text('one')
    assert [kernels.cubin(file, t) for t in ('sm_90', 'sm_90', 'sm_87')] == [
        b'code 1',
        b'code 1',
        b'code 2',
    ]
    file.write_text('two')
    assert kernels.cubin(file, 'sm_90') == b'code 3'
    assert [target for _, target in compiled] == ['sm_90', 'sm_87', 'sm_90']


@pytest.mark.parametrize('damage', [lambda b: b[:-1], lambda b: b'', lambda b: b[:40] + b'!' * 9])
def test_a_damaged_file_is_compiled_again(tmp_path, cache, compiled, damage):
    file = tmp_path / 'a.cu'
    file.write_text('one')
    kernels.cubin(file, 'sm_90')
    (kept,) = cache.iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    assert kernels.cubin(file, 'sm_90') == b'code 2'
    assert kernels.cubin(file, 'sm_90') == b'code 2'


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, cache, compiled):
    cache.parent.write_text('a file where the folder should be')
    file = tmp_path / 'a.cu'
    file.write_text('one')
    assert kernels.cubin(file, 'sm_90') == b'code 1'
    assert kernels.cubin(file, 'sm_90') == b'code 2'


def test_cuda_core_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cuda.core', None)
    monkeypatch.setitem(sys.modules, 'cuda.core.experimental', None)
    with pytest.raises(BackendError, match=r'tiny.cu is compiled by cuda-core.*\[tensorrt\]'):
        kernels.compile_source(TINY, 'tiny.cu', 'sm_90')


def test_nvrtc_is_missing(monkeypatch):
    core = pytest.importorskip('cuda.core', reason="pip install '.[tensorrt]'")

    class Program:
        def __init__(self, *rest):
            raise RuntimeError('Failure finding "libnvrtc.so.13"')

    monkeypatch.setattr(core, 'Program', Program)
    with pytest.raises(BackendError, match='NVRTC is missing: install the CUDA toolkit, or pip'):
        kernels.compile_source(TINY, 'tiny.cu', 'sm_90')


def test_no_gpu_for_a_kernel():
    from vla_trt_ros.gpu import cuda

    pytest.importorskip('cuda.bindings', reason="pip install '.[tensorrt]'")
    try:
        cuda.device_target()
    except BackendError:
        with pytest.raises(BackendError, match='There is no NVIDIA GPU or driver here'):
            kernels.Kernel(SOURCE, 'write_images_32')
    else:
        pytest.skip('there is a GPU here')
