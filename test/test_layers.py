"""Imports go one way, and heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vla_trt_ros

PACKAGE = Path(vla_trt_ros.__file__).parent

# A module imports only from its own room and from rooms with a lower number.
FLOORS = {
    'gpu_frame': -1,
    'errors': 0,
    'datatypes': 0,
    'closing': 0,
    'hardware': 0,
    'strict_yaml': 1,
    'tables': 1,
    'freshness': 1,
    'pacing': 1,
    'config': 2,
    'bundle': 3,
    'joints': 3,
    'gpu': 3,
    'camera': 4,
    'preprocess': 4,
    'backends': 4,
    'messages': 5,
    'policies': 6,
    'perception': 6,
    'actions': 6,
    'pipeline': 7,
    'planning': 7,
    'bags': 7,
    'loading': 8,
    'sim': 8,
    'viz': 8,
    'evaluation': 9,
    'bringup': 9,
    'conversion': 11,
    'msg': 0,
    'srv': 0,
    'replay': 10,
    'nodes': 11,
    'cli': 12,
    'export': 9,
}
TORCH_BACKENDS = ('backends/torch_gpu.py', 'backends/onnx_graph/')
# Where a library may be imported, wherever in the file the import stands.
ROOMS = {
    'rclpy': ('nodes/',),
    'sensor_msgs': ('nodes/',),
    'vision_msgs': ('nodes/',),
    'torch': ('export/', 'cli/export.py', 'policies/pi05/cuda/', *TORCH_BACKENDS),
    'triton': ('policies/pi05/cuda/',),
    'tensorrt': ('backends/trt_module.py',),
    'tensorrt_bindings': ('backends/trt_module.py',),
    'tensorrt_rtx': ('backends/trt_module.py',),
    'tensorrt_rtx_bindings': ('backends/trt_module.py',),
    'cuda': ('gpu/',),
    'onnxruntime': ('backends/onnxruntime.py', 'export/'),
    'onnx': ('export/', 'backends/onnx_graph/'),
    'cv2': ('camera/', 'preprocess/', 'export/perception/'),
    'sentencepiece': ('preprocess/', 'export/'),
    'mujoco': ('sim/',),
    'metaworld': ('sim/',),
    'libero': ('sim/',),
    'robosuite': ('sim/',),
    'matplotlib': ('viz/',),
    'pyarrow': ('sim/dataset/',),
    'rosbags': ('bags/',),
    'lerobot': ('export/', 'conversion/'),
}
GENERATED = ('msg', 'srv')


def sources():
    for path in sorted(PACKAGE.rglob('*.py')):
        place = path.relative_to(PACKAGE)
        if place.parts[0] not in GENERATED:
            yield place


def imported(place: Path) -> set[str]:
    """Dotted names that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / place).read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def room(dotted: str) -> str:
    return dotted.split('.')[1]


@pytest.mark.parametrize('place', list(sources()), ids=str)
def test_imports_go_one_way(place):
    if place.name == '__init__.py' and len(place.parts) == 1:
        assert not imported(place)
        return
    own = place.parts[0].removesuffix('.py')
    for name in imported(place):
        if name.startswith('vla_trt_ros.') and room(name) != own:
            assert room(name) in FLOORS, f'{place} imports {name}: give its room a floor'
            assert FLOORS[room(name)] < FLOORS[own], f'{place} ({own}) imports {name}'


@pytest.mark.parametrize('place', list(sources()), ids=str)
def test_libraries_stay_in_their_rooms(place):
    for name in imported(place):
        allowed = ROOMS.get(name.split('.')[0])
        if allowed is not None:
            assert place.as_posix().startswith(allowed), f'{place} imports {name}'


def test_export_is_named_only_by_the_verbs_that_need_it():
    outside = {
        place.as_posix()
        for place in sources()
        if place.parts[0] != 'export'
        and any(n.startswith('vla_trt_ros.export') for n in imported(place))
    }
    verbs = ('export', 'export_perception', 'build', 'parity', 'bench_baseline')
    assert outside <= {f'cli/{verb}.py' for verb in verbs}


def test_no_python_folder_takes_a_name_that_ros_generates():
    folders = {p.parent.name for p in PACKAGE.rglob('*.py') if p.parent.parent != PACKAGE}
    assert not folders & {'msg', 'srv', 'action'}


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter that ran ``code``."""
    script = f'{code}\nimport sys\nprint(*{{m.split(".")[0] for m in sys.modules}})'
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


HEAVY = {'torch', 'tensorrt', 'onnx', 'mujoco', 'metaworld', 'matplotlib'}


def test_nano_on_the_cpu_needs_no_ros_no_torch_no_tensorrt():
    code = (
        'from vla_trt_ros.loading import load_pipeline\n'
        "p = load_pipeline(robot='metaworld', prompt='reach the goal')\n"
        'p.policy.close()'
    )
    assert not loaded_after(code) & (HEAVY | {'rclpy'})


@pytest.mark.ros
def test_nodes_of_a_robot_need_no_workshop_and_no_simulator():
    pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
    loaded = loaded_after('import vla_trt_ros.nodes.compose')
    assert 'rclpy' in loaded
    assert not loaded & HEAVY
