"""Our kernels compile for every GPU that we name, once, and say why where they do not."""
# ruff: noqa: N801, N802  the names are cuda-python's

import ctypes
import sys
from types import SimpleNamespace

import pytest
from gpu_stand_in import Cuda

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import kernels
from vla_trt_ros.perception import candidates
from vla_trt_ros.preprocess.cuda import squares
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
@pytest.mark.parametrize('target', TARGETS)
def test_squares_compile(target):
    code = kernels.cubin(squares.SOURCE, target)
    for name in (b'write_square_16', b'write_square_32'):
        assert name in code


@needs_nvrtc
@pytest.mark.parametrize('target', TARGETS)
def test_candidates_compile(target):
    assert b'best_labels' in kernels.cubin(candidates.SOURCE, target)


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


class Driver:
    """cuda.bindings.driver, as far as a kernel needs it: what it was launched with."""

    def __init__(self):
        self.launches = []

    def cuCtxGetCurrent(self):
        return 0, 'context'

    def cuCtxSetCurrent(self, context):
        assert context == 'context'
        return (0,)

    def cuModuleLoadData(self, code):
        return 0, code

    def cuModuleGetFunction(self, module, name):
        return (0, (module, name)) if name != b'nothing' else (500, None)

    def cuLaunchKernel(self, function, *rest):
        *shape, shared, stream, parameters, extra = rest
        assert (shared, extra) == (0, 0)
        addresses = (ctypes.c_void_p * 2).from_address(parameters)
        values = (
            ctypes.c_int.from_address(addresses[0]).value,
            ctypes.c_void_p.from_address(addresses[1]).value,
        )
        self.launches.append((function, shape, stream, values))
        return (0,)

    class CUfunction_attribute:
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8

    def cuFuncSetAttribute(self, function, attribute, value):
        self.attributes = (function, attribute, value)
        return (0,)

    def cuLaunchCooperativeKernel(self, function, *rest):
        self.launches.append((function, *rest[:-1]))
        return (0,)

    CUlaunchConfig = SimpleNamespace

    class CUlaunchAttribute:
        def __init__(self):
            self.value = SimpleNamespace(clusterDim=SimpleNamespace())

    class CUlaunchAttributeID:
        CU_LAUNCH_ATTRIBUTE_COOPERATIVE = 2
        CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4
        CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6

    @staticmethod
    def CUstream(handle):
        return handle

    def cuLaunchKernelEx(self, config, function, parameters, extra):
        assert config.numAttrs == len(config.attrs)
        self.launches.append((function, config, {a.id: a.value for a in config.attrs}))
        return (0,)


@pytest.fixture
def gpu(monkeypatch, compiled):
    made = Driver()
    monkeypatch.setattr(kernels, 'driver', lambda: made)
    monkeypatch.setattr(kernels, 'runtime', Cuda)
    monkeypatch.setattr(kernels, 'device_target', lambda: 'sm_90')
    return made


def test_a_launch_hands_over_the_address_of_each_argument(gpu):
    kernel = kernels.Kernel(SOURCE, 'write_images_32')
    kernel.launch((3, 2, 1), (32, 4, 1), (ctypes.c_int(7), ctypes.c_void_p(4096)), 11)
    function = (b'code 1', b'write_images_32')
    assert gpu.launches == [(function, [3, 2, 1, 32, 4, 1], 11, (7, 4096))]


def test_blocks_that_wait_for_each_other_are_launched_all_at_once(gpu, compiled):
    kernel = kernels.Kernel(SOURCE, 'whole', target='sm_90a', shared=7 << 15, cooperative=True)
    kernel.launch((128, 1, 1), (288, 1, 1), (ctypes.c_int(7),), 11)
    function = (b'code 1', b'whole')
    assert [target for _, target in compiled] == ['sm_90a']
    assert gpu.attributes == (function, 8, 7 << 15)
    assert gpu.launches == [(function, 128, 1, 1, 288, 1, 1, 7 << 15, 11)]


def test_blocks_of_a_cluster_and_a_chained_launch_are_asked_of_the_driver(gpu):
    kernel = kernels.Kernel(SOURCE, 'whole', target='sm_90a', shared=512, chained=True)
    kernel.launch((6, 1, 1), (384, 1, 1), (ctypes.c_int(7),), 11, cluster=3)
    kernel.launch((6, 1, 1), (384, 1, 1), (ctypes.c_int(7),), 11)
    (function, config, values), (_, _, alone) = gpu.launches
    assert function == (b'code 1', b'whole')
    assert (config.gridDimX, config.blockDimX, config.sharedMemBytes) == (6, 384, 512)
    assert config.hStream == 11
    assert vars(values[4].clusterDim) == {'x': 3, 'y': 1, 'z': 1}
    assert values[6].programmaticStreamSerializationAllowed == 1
    assert list(alone) == [6]


def test_a_cooperative_kernel_stays_so_in_clusters(gpu):
    kernel = kernels.Kernel(SOURCE, 'whole', target='sm_90a', cooperative=True)
    kernel.launch((6, 1, 1), (384, 1, 1), (ctypes.c_int(7),), 11, cluster=2)
    ((_, _, values),) = gpu.launches
    assert values[2].cooperative == 1
    assert values[4].clusterDim.x == 2


def test_numbers_that_a_source_leaves_open_are_part_of_what_is_compiled(tmp_path, compiled):
    file = tmp_path / 'a.cu'
    file.write_text('int rows = ROWS;\n')
    for rows in (10, 50, 10):
        kernels.cubin(file, 'sm_90', {'ROWS': rows})
    expected = [f'#define ROWS {rows}\nint rows = ROWS;\n' for rows in (10, 50)]
    assert [text for text, _ in compiled] == expected


def test_a_kernel_is_compiled_again_when_a_file_that_it_includes_changes(tmp_path, compiled):
    (tmp_path / 'parts').mkdir()
    file, part = tmp_path / 'a.cu', tmp_path / 'parts' / 'b.cu'
    file.write_text('one\n#include "parts/b.cu"\nthree\n')
    for number in ('two', '2'):
        part.write_text(number)
        kernels.cubin(file, 'sm_90')
    assert [text for text, _ in compiled] == ['one\ntwo\nthree\n', 'one\n2\nthree\n']


def test_a_kernel_that_is_not_in_the_file(gpu):
    with pytest.raises(BackendError, match='finding nothing in images.cu: CUDA says 500'):
        kernels.Kernel(SOURCE, 'nothing')


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
