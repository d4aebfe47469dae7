"""Every name of TensorRT that this package uses is there in each version that it claims to serve.

The Python bindings are the real ones; the libraries under them are empty, since TensorRT cannot be
installed everywhere. So this shows that names exist, not what they do. To fetch the bindings, for
Python 3.11 on x86_64 (others skip):

    pip download --no-deps -d ~/.cache/vla_trt_ros/bindings tensorrt-cu13-bindings==10.13.3.9
    (and ==10.16.1.11, ==11.4.0.106; VLA_TRT_BINDINGS names another folder)
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vla_trt_ros

PACKAGE = Path(vla_trt_ros.__file__).parent
WHEELS = Path(
    os.environ.get('VLA_TRT_BINDINGS') or Path.home() / '.cache' / 'vla_trt_ros' / 'bindings'
)
VERSIONS = ('10.13.3.9', '10.16.1.11', '11.4.0.106')

# An expression in the source -> the class of TensorRT that it holds.
COMMON = {
    'module': '',
    'trt.module': '',
    'self._trt.module': '',
    'severity': 'ILogger.Severity',
    'flags': 'NetworkDefinitionCreationFlag',
    'engine': 'ICudaEngine',
    'self._context': 'IExecutionContext',
    'runtime': 'Runtime',
    'builder': 'Builder',
    'network': 'INetworkDefinition',
    'parser': 'OnnxParser',
    'e': 'ParserError',
    'serialized': 'IHostMemory',
    'layer': 'ILayer',
    'layer.attention': 'IAttention',
}
FILES = {
    'backends/trt_module.py': {},
    'backends/tensorrt.py': {'config': 'IRuntimeConfig', 'self._cache': 'IRuntimeCache'},
    'export/trt/builder.py': {'config': 'IBuilderConfig', 'cache': 'ITimingCache'},
    'export/trt/targets.py': {'config': 'IBuilderConfig'},
}
# Used only after a test that they are there.
GUARDED = {
    'ComputeCapability': 'getattr in targets.py',
    'IBuilderConfig.num_compute_capabilities': 'ComputeCapability',
    'IBuilderConfig.set_compute_capability': 'ComputeCapability',
    'IRuntimeConfig.create_runtime_cache': 'hasattr in tensorrt.py',
    'IRuntimeConfig.set_runtime_cache': 'create_runtime_cache',
    'IRuntimeCache.serialize': 'create_runtime_cache',
    'IRuntimeCache.deserialize': 'create_runtime_cache',
    'LayerType.ATTENTION_INPUT': 'getattr in builder.py',
    'IAttentionInputLayer': 'LayerType.ATTENTION_INPUT',
    'IAttention.decomposable': 'LayerType.ATTENTION_INPUT',
    'IAttention': 'hasattr in builder.py',
    'ILayer.attention': 'LayerType.ATTENTION_INPUT, on an IAttentionInputLayer',
}
# The smallest set that a reader of the sources would miss: guards the collection itself.
MUST_BE_USED = {
    'Runtime.deserialize_cuda_engine',
    'ICudaEngine.create_execution_context',
    'ICudaEngine.get_tensor_dtype',
    'IExecutionContext.set_tensor_address',
    'IExecutionContext.execute_async_v3',
    'TensorIOMode.INPUT',
    'Builder.build_serialized_network',
    'OnnxParser.parse',
    'IBuilderConfig.set_memory_pool_limit',
    'MemoryPoolType.WORKSPACE',
    'NetworkDefinitionCreationFlag.STRONGLY_TYPED',
    'ITimingCache.serialize',
}
# Symbols that the bindings take from the libraries.
EMPTY = """
#define NONE(name) void *name(void) { return 0; }
NONE(createInferBuilder_INTERNAL) NONE(createInferRuntime_INTERNAL)
NONE(createInferRefitter_INTERNAL) NONE(createNvOnnxParser_INTERNAL)
NONE(createNvOnnxParserRefitter_INTERNAL) NONE(getBuilderPluginRegistry)
NONE(getPluginRegistry) NONE(getNvOnnxParserVersion) NONE(initLibNvInferPlugins)
"""
LIBRARIES = ('libnvinfer', 'libnvonnxparser', 'libnvinfer_plugin')
PROBE = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
missing = []
for path in json.loads(sys.argv[2]):
    thing = module
    for part in path.split('.'):
        thing = getattr(thing, part, None)
        if thing is None:
            missing.append(path)
            break
print('answer', json.dumps({'version': module.__version__, 'missing': missing}))
"""


def used_names() -> set[str]:
    """'Class.member' for everything that the sources ask of TensorRT."""
    found = set()
    for file, extra in FILES.items():
        receivers = COMMON | extra
        tree = ast.parse((PACKAGE / file).read_text(encoding='utf-8'))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            receiver = ast.unparse(node.value)
            if receiver in receivers:
                found.add(f'{receivers[receiver]}.{node.attr}'.lstrip('.'))
            else:
                head, _, name = receiver.rpartition('.')
                if receivers.get(head) == '':
                    found.add(f'{name}.{node.attr}')
    found |= {f'DataType.{name}' for name in dtype_names()}
    return found - {'ILayer.__class__', '__version__'}


def dtype_names() -> list[str]:
    """Keys of the table of dtypes in backends/tensorrt.py."""
    tree = ast.parse((PACKAGE / 'backends/tensorrt.py').read_text(encoding='utf-8'))
    (table,) = (
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '_DTYPES'
    )
    return [ast.literal_eval(key) for key in table.keys]


def missing_in(module: str, names: set[str], **environment: str) -> set[str]:
    """Of ``names``, those that ``module`` lacks, asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, '-c', PROBE, module, json.dumps(sorted(names))],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (n for n in done.stdout.splitlines() if n.startswith('answer '))
    return set(json.loads(line.removeprefix('answer '))['missing'])


@pytest.fixture(scope='module', params=VERSIONS)
def bindings(request, tmp_path_factory):
    """Folder of the real bindings over empty libraries."""
    version = request.param
    tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    wheels = list(WHEELS.glob(f'tensorrt_cu13_bindings-{version}-{tag}-*x86_64.whl'))
    if not wheels:
        pytest.skip(f'no wheel of tensorrt-cu13-bindings {version} for {tag} in {WHEELS}')
    if shutil.which('cc') is None:
        pytest.skip('no C compiler for the empty libraries')
    folder = tmp_path_factory.mktemp(f'tensorrt-{version}')
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder)
    source = folder / 'empty.c'
    source.write_text(EMPTY)
    for name in LIBRARIES:
        library = f'{name}.so.{version.split(".")[0]}'
        command = ['cc', '-shared', '-fPIC', f'-Wl,-soname,{library}', '-o', folder / library]
        subprocess.run([*command, source], check=True)
    return folder


def ask(folder: Path, names: set[str]) -> set[str]:
    return missing_in(
        'tensorrt_bindings', names, PYTHONPATH=str(folder), LD_LIBRARY_PATH=str(folder)
    )


def test_the_collection_finds_what_the_sources_use():
    names = used_names()
    assert names >= MUST_BE_USED
    assert len(names) > 40
    assert {n for n in GUARDED if '.' in n} - {'LayerType.ATTENTION_INPUT'} <= names


def test_every_name_is_there(bindings):
    missing = ask(bindings, used_names())
    assert missing - set(GUARDED) == set()


def test_a_name_that_is_not_there_is_noticed(bindings):
    gone = {'ICudaEngine.num_bindings', 'Runtime.deserialize_cuda_engine_v9'}
    assert ask(bindings, gone | {'Runtime.logger'}) == gone


def test_features_are_where_their_guards_expect_them(bindings):
    assert 'ComputeCapability' in ask(bindings, {'ComputeCapability'})  # RTX alone
    old = '10.13' in str(bindings)
    guarded = {'IAttention', 'IAttentionInputLayer', 'LayerType.ATTENTION_INPUT'}
    assert ask(bindings, guarded) == (guarded if old else set())


def test_every_name_is_there_in_rtx():
    pytest.importorskip(
        'tensorrt_rtx_bindings', reason="workshop only: pip install '.[trt-build]'"
    )
    import tensorrt_rtx_libs  # the bindings find their library beside it

    assert tensorrt_rtx_libs.__file__
    script = PROBE.replace('import importlib', 'import tensorrt_rtx_libs, importlib')
    names = used_names() | set(GUARDED)
    done = subprocess.run(
        [sys.executable, '-c', script, 'tensorrt_rtx_bindings', json.dumps(sorted(names))],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.split('answer ')[1])
    # An attention layer is parsed as a plain ILayer: builder.py sets its class first.
    assert set(answer['missing']) == {'ILayer.attention'}
