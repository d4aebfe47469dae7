"""What detectors beside the policy cost it on this GPU, over DDS between processes.

    python benchmarks/perception_gpu.py [--bundle DIR] [--networks DIR] [--json FILE]

Two 640x480 cameras at 30 Hz and joint states at 100 Hz come from another process. The policy, true
size with random weights in hand-tuned stages, and the perception node share a second process,
which is started once. In turns the detectors look, at every frame of both cameras, and rest
(lifecycle: active, inactive), so that what the machine does besides falls on both. The detector
sees 640 x 640 pixels and costs what YOLO11s does (23 GFLOP; our own architecture, widened, random
weights); two classifiers at 224 x 224 look at its best boxes. --bundle and --networks name what
was made before (--make DIR makes networks and ends); --detectors and --classifiers take other
bundles. Figures go into the file beside those of perception.py. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cpu_nodes import RATE, node, percentile, rate, report, rounded
from gpu_nodes import PLATFORM, machine, make_bundle, tail
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from records import put

from vla_trt_ros.bringup import transport_environment
from vla_trt_ros.cli.checks import compute_capability
from vla_trt_ros.msg import PerceptionTiming, PolicyTiming
from vla_trt_ros.nodes.monitor import Monitor

SIDE, CROP = 640, 224
WIDTHS = (40, 80, 160, 320, 400)
CAMERAS = ('base', 'wrist')
SETTLE = 1.0  # seconds left out at the start of a turn
GOALS = {
    'gpu_added_ms_p50': ('<=', 1.5),
    'uploads_per_frame': ('<=', 0.0),
    'looks_per_s_camera': ('>=', 29.0),
    'crops_per_look': ('>=', 2.0),
}
CLOCK = {
    'gpu_added_ms_p50': 'p50 of PolicyTiming.end_to_end_ms (oldest exposure -> publish), all '
    'turns together, while detectors look less while they rest',
    'uploads_per_frame': 'most host-to-device copies that a look took: 0 where it reads the '
    "policy's upload; counted where CUDA is called",
    'policy_uploads': 'the same of a chunk: frames, prompt, mask and noise; resting, looking',
    'looks_per_s_camera': 'looks heard of the camera with fewer / seconds',
    'detect_ms': 'letterbox kernel, network, boxes on the host; steady clock',
    'classify_ms': 'all crops of both classifiers, one wait; steady clock',
    'look_age_p50_ms': 'exposure -> detections published; ROS clock',
}


def main() -> int:
    """Status 0 where every goal is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--bundle', default='', help='policy of two views; default: made')
    parser.add_argument('--networks', type=Path, metavar='DIR', help='what --make made')
    parser.add_argument('--make', type=Path, metavar='DIR', help='make the networks there and end')
    parser.add_argument('--detectors', default='', help='bundles in place of the one that is made')
    parser.add_argument('--classifiers', default='', help='bundles in place of those made')
    parser.add_argument('--precision', default='fp8', help='of the policy: bf16 or fp8')
    parser.add_argument('--perception', default='onnx_graph', help='backend of the detectors')
    parser.add_argument('--boxes', type=int, default=4, help='of a picture, all classified')
    parser.add_argument('--after-chunk', action='store_true', help='look between two ticks')
    parser.add_argument('--steps', type=int, default=10, help='denoise steps')
    parser.add_argument('--seconds', type=float, default=12.0, help='of each turn that count')
    parser.add_argument('--rounds', type=int, default=2, help='of a turn without and one with')
    parser.add_argument('--json', default='benchmarks/perception.json', metavar='FILE')
    args = parser.parse_args()
    if args.make:
        make_networks(args.make)
        return 0
    os.environ.update(transport_environment(os.environ))
    with tempfile.TemporaryDirectory() as folder:
        resting, looking, looks = measure(args, Path(folder))
    record = {
        **machine(),
        'setting': f'two 640x480 rgb8 cameras at 30 Hz; policy of true size, random weights, '
        f'{args.precision}, {args.steps} steps; detectors '
        f'{args.detectors or f"of 23 GFLOP at {SIDE}"}, classifiers '
        f'{args.classifiers or f"two at {CROP}"} by {args.perception} fp16 at every '
        f'frame of both, {args.boxes} boxes a picture, after_chunk {args.after_chunk}',
        'rounds': args.rounds,
        'seconds_each': args.seconds,
        'clock': CLOCK,
        **figures(resting, looking, looks, args.seconds * args.rounds),
    }
    missed = report(record, GOALS)
    told = {name: record[name] for name in ('gpu_added_ms_p50', 'uploads_per_frame')}
    put(args.json, {**told, 'beside_the_policy_on_a_gpu': record})
    print(f'wrote {args.json}')
    return 1 if missed else 0


Turns = list[list[PolicyTiming]]


def measure(
    args: argparse.Namespace, folder: Path
) -> tuple[Turns, Turns, list[list[PerceptionTiming]]]:
    """Timings of the turns in which detectors rest, of those in which they look, and the looks."""
    parameters = {
        'bundle': args.bundle or make_bundle(folder, args.precision),
        'platform': write_platform(folder, args),
        'num_steps': args.steps,
        'rates': 'all=/1',
        'max_detections': args.boxes,
        'after_chunk': args.after_chunk,
        **chosen_networks(args, folder),
    }
    resting: Turns = []
    looking: Turns = []
    looks: list[list[PerceptionTiming]] = []
    with (
        tempfile.TemporaryFile() as log,
        Monitor(detections=CAMERAS) as monitor,
        node('pattern_node', rate=RATE),
        node('compose', log, ('policy', 'perception'), **parameters) as process,
    ):
        begin = time.monotonic()

        def ready() -> bool:
            heard = {look.camera for look in monitor.looks}
            return process.poll() is not None or (bool(monitor.timings) and heard >= set(CAMERAS))

        if not monitor.wait_for(ready, 240) or process.poll() is not None:
            raise SystemExit(f'no chunk, or no look, within 240 s:\n{tail(log)}')
        print(f'started in {time.monotonic() - begin:.0f} s', flush=True)
        for _ in range(args.rounds):
            switch(monitor, Transition.TRANSITION_DEACTIVATE)
            resting.append(turn(monitor, args.seconds)[0])
            switch(monitor, Transition.TRANSITION_ACTIVATE)
            timings, seen = turn(monitor, args.seconds)
            looking.append(timings)
            looks.append(seen)
        if not all(looks):
            raise SystemExit(f'a turn without a look:\n{tail(log)}')
    return resting, looking, looks


def turn(monitor: Monitor, seconds: float) -> tuple[list[PolicyTiming], list[PerceptionTiming]]:
    """What is heard in ``seconds``, after a moment."""
    time.sleep(SETTLE)
    first, first_look = len(monitor.timings), len(monitor.looks)
    time.sleep(seconds)
    return [timing for _, timing in monitor.timings[first:]], monitor.looks[first_look:]


def switch(monitor: Monitor, transition: int) -> None:
    """Take the perception node through a lifecycle transition."""
    client = monitor.client(ChangeState, 'perception/change_state')
    if not client.wait_for_service(10):
        raise SystemExit('the perception node offers no change_state')
    future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
    if not monitor.wait_for(future.done, 30) or not future.result().success:
        raise SystemExit(f'the perception node did not make transition {transition}')


def write_platform(folder: Path, args: argparse.Namespace) -> Path:
    """The platform file of this machine."""
    path = folder / 'here.yaml'
    text = PLATFORM.format(target=compute_capability(), precision=args.precision)
    perception = f'perception: {{backend: {args.perception}, precision: fp16}}\n'
    path.write_text(text + perception, encoding='utf-8')
    return path


def chosen_networks(args: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Parameters ``detectors`` and ``classifiers``."""
    names = {'detectors': args.detectors, 'classifiers': args.classifiers}
    if all(names.values()):
        return names
    if args.networks is None:
        make_networks(folder / 'networks')
    made = args.networks or folder / 'networks'
    return {
        'detectors': names['detectors'] or f'{made}/objects',
        'classifiers': names['classifiers'] or f'{made}/first,{made}/second',
    }


def make_networks(folder: Path) -> None:
    """Bundles 'objects', 'first' and 'second' of random weights, fp16."""
    import torch

    from vla_trt_ros.export.perception.network import (
        CropClassifier,
        FinalBoxes,
        ObjectDetector,
        fold_norms,
    )
    from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig

    begin = time.monotonic()
    torch.manual_seed(0)
    detector = ObjectDetector(2, WIDTHS)
    torch.nn.init.constant_(detector.edges.bias, 1.8)  # boxes of about 100 pixels
    # Whatever is best in a picture counts: a test pattern has no objects.
    config = DetectorConfig(SIDE, ('one', 'other'), 'boxes', score_threshold=0.0)
    write(folder / 'objects', FinalBoxes(fold_norms(detector)), config, (1, 100, 6))
    for name in ('first', 'second'):
        classifier = ClassifierConfig(CROP, ('a', 'b', 'c'), margin=0.1)
        write(folder / name, fold_norms(CropClassifier(3)), classifier, (1, 3))
    print(f'networks made in {time.monotonic() - begin:.0f} s', flush=True)


def write(out: Path, network: object, config: object, shape: Sequence[int]) -> None:
    """A bundle of ``network``, float16 and the float32 that it is made from."""
    from vla_trt_ros.datatypes import TensorSpec
    from vla_trt_ros.export.perception.job import PerceptionJob, export
    from vla_trt_ros.export.to_onnx import export_stage
    from vla_trt_ros.policies.pi05.spec import StageSpec

    side = config.image_size
    images = TensorSpec('images', (1, 3, side, side), 'float32')
    spec = StageSpec((images,), (TensorSpec('found', tuple(shape), 'float32'),))
    noise = np.random.default_rng(0).random(images.shape, np.float32)
    out.parent.mkdir(parents=True, exist_ok=True)
    notes = {'weights': 'random', 'licence': 'Apache-2.0'}
    job = PerceptionJob(
        out, export_stage(network, spec), config, ('fp32', 'fp16'), [noise], notes, half=True
    )
    export(job)


def figures(
    resting: Turns, looking: Turns, runs: list[list[PerceptionTiming]], seconds: float
) -> dict[str, object]:
    """What the turns say."""
    looks = [look for run in runs for look in run]
    alone, beside = ([t for turn in turns for t in turn] for turns in (resting, looking))
    before, after = (percentile([t.end_to_end_ms for t in ts], 50) for ts in (alone, beside))
    per_camera = {c: sum(look.camera == c for look in looks) / seconds for c in CAMERAS}

    def spread(timings: Sequence[object], name: str) -> list[float]:
        return [percentile([getattr(t, name) for t in timings], q) for q in (50, 99)]

    return {
        'gpu_added_ms_p50': rounded(after - before),
        'uploads_per_frame': max(look.uploads for look in looks),
        'policy_uploads': [max(t.uploads for t in ts) for ts in (alone, beside)],
        'end_to_end_p50_p99_resting_ms': spread(alone, 'end_to_end_ms'),
        'end_to_end_p50_p99_looking_ms': spread(beside, 'end_to_end_ms'),
        'end_to_end_p50_of_turns_resting_ms': [spread(t, 'end_to_end_ms')[0] for t in resting],
        'end_to_end_p50_of_turns_looking_ms': [spread(t, 'end_to_end_ms')[0] for t in looking],
        'engine_p50_p99_resting_ms': spread(alone, 'engine_ms'),
        'engine_p50_p99_looking_ms': spread(beside, 'engine_ms'),
        'chunks_per_s_resting': [rounded(rate(t)) for t in resting],
        'chunks_per_s_looking': [rounded(rate(t)) for t in looking],
        'looks_per_s_camera': rounded(min(per_camera.values())),
        'looks_per_s': {c: rounded(n) for c, n in per_camera.items()},
        'crops_per_look': rounded(float(np.mean([look.crops for look in looks]))),
        'detect_p50_p99_ms': spread(looks, 'detect_ms'),
        'classify_p50_p99_ms': spread(looks, 'classify_ms'),
        'image_age_p50_p99_ms': spread(looks, 'image_age_ms'),
        'look_age_p50_ms': spread(looks, 'end_to_end_ms')[0],
        'frames_rejected': max(look.frames_rejected for look in looks),
        'late': max(look.late for look in looks),
        'gpu_memory_mib': rounded(beside[-1].device_memory_mib),
    }


if __name__ == '__main__':
    sys.exit(main())
