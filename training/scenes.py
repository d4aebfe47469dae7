"""Pictures of the simulator with their boxes and states, for the detector and the classifiers.

  python training/scenes.py --out runs/scenes.npz --images 3000
  python training/scenes.py --out runs/validation.npz --images 300 --seeds validation

The arm does its task, more or less disturbed, and is photographed now and then: by the robot's two
cameras most of the time, else from where it has no camera, so that the networks do not learn one
standpoint by heart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.sim.disturbance import Disturbance
from vla_trt_ros.sim.seeds import HELD_OUT_FROM, TRAINING_SEEDS, VALIDATION_SEEDS

SEEDS = {
    'training': TRAINING_SEEDS.start,
    'validation': VALIDATION_SEEDS.start,
    'held-out': HELD_OUT_FROM + 10_000,
}
"""First seed of each set. The policy is judged on others of the held-out ones."""

SIZES = ((224, 224), (224, 224), (224, 224), (320, 240), (320, 320))
"""Width and height of pictures: the simulator node's own most of the time."""
SHOTS, LONGEST = 6, 110
"""Pictures of an episode, and control steps that they are spread over at most."""
QUALITY = 80

HINGES = {
    'drawer': ('goal_slidey', -0.15),
    'door': ('doorjoint', -1.5),
    'window': ('window_slide', 0.2),
}
"""What opens: its joint, and where that is wide open, m or rad."""
UNKNOWN = -1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture. ``boxes`` float32 [N, 4] (left, upper, right, lower, pixels) and ``labels``
    int64 [N] as in sim/labelled.py; ``opening`` of what opens in it and ``gripper``: 0 closed to
    1 open, UNKNOWN where there is none.
    """

    image: Uint8Array
    boxes: np.typing.NDArray[np.float32]
    labels: np.typing.NDArray[np.int64]
    view: str
    opening: float
    gripper: float
    names: tuple[str, ...] = ()
    """What the labels mean."""


def scenes(count: int, first_seed: int, views: tuple[str, ...] = ()) -> Iterator[Scene]:
    """``count`` pictures from ``first_seed`` on, the same ones each time; ``views`` alone ('near',
    'wrist') as they stand, or (empty) all, with the near one moved about.
    """
    from vla_trt_ros.sim.labelled import LABELS, TASKS, LabelledCameras
    from vla_trt_ros.sim.metaworld import MetaWorld
    from vla_trt_ros.sim.teacher import Teacher
    from vla_trt_ros.sim.views import BASE_VIEWS, WRIST_VIEW

    envs: dict[str, Any] = {}
    made = episode = 0
    while made < count:
        seed = first_seed + episode
        random = np.random.default_rng((seed, 6))
        task = TASKS[episode % len(TASKS)]
        episode += 1
        env = envs.setdefault(task, None) or MetaWorld(task)
        envs[task] = env
        env.reset(seed)
        teacher, disturbance = Teacher(env), Disturbance(float(random.choice((0, 0.5, 1))), random)
        chosen = _views(random, views, {**BASE_VIEWS, 'wrist': WRIST_VIEW})
        width, height = SIZES[0 if views else int(random.integers(len(SIZES)))]
        moments = set(random.integers(0, LONGEST, SHOTS).tolist())
        with closing(LabelledCameras(env, chosen, width=width, height=height)) as cameras:
            for step in range(max(moments) + 1):
                if step in moments:
                    for view, truth in cameras.look().items():
                        if made < count:
                            made += 1
                            yield Scene(
                                truth.image,
                                truth.boxes,
                                truth.labels,
                                view,
                                _opening(env, task),
                                float(env.observe().positions[3]),
                                LABELS,
                            )
                env.apply(disturbance.alter(teacher.target(), env.observe().positions[:3]))
    for env in envs.values():
        env.close()


def _views(random: np.random.Generator, only: tuple[str, ...], known: dict[str, Any]) -> Any:
    if only:
        return {name: known[name] for name in only}
    if random.random() < 0.4:
        name = str(random.choice(('corner', 'corner3', 'corner4', 'topview')))
        return {name: known[name]}
    near = known['near']
    moved = replace(
        near,
        azimuth=near.azimuth + random.uniform(-12, 12),
        elevation=near.elevation + random.uniform(-8, 8),
        distance=near.distance * random.uniform(0.85, 1.25),
        look_at=tuple(float(x + random.uniform(-0.05, 0.05)) for x in near.look_at),
    )
    return {'near': moved, 'wrist': known['wrist']}


def _opening(env: Any, task: str) -> float:
    joint, wide = HINGES.get(task.partition('-')[0], ('', 1.0))
    return float(np.clip(env.data.joint(joint).qpos[0] / wide, 0, 1)) if joint else UNKNOWN


def write(path: Path, count: int, first_seed: int, pictures: Path | None = None) -> None:
    """Make ``count`` scenes and save them: JPEGs one behind the other, boxes likewise. The
    pictures are written into folder ``pictures`` as files too, to calibrate on.
    """
    files, ends, boxes, labels, owners, states = [], [0], [], [], [], []
    for i, scene in enumerate(scenes(count, first_seed)):
        jpeg = BytesIO()
        Image.fromarray(scene.image).save(jpeg, 'JPEG', quality=QUALITY)
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            (pictures / f'{i:05}.jpg').write_bytes(jpeg.getvalue())
        files.append(np.frombuffer(jpeg.getvalue(), np.uint8))
        ends.append(ends[-1] + len(files[-1]))
        boxes.append(scene.boxes)
        labels.append(scene.labels)
        owners += [i] * len(scene.labels)
        states.append((scene.opening, scene.gripper))
        if (i + 1) % 100 == 0:
            print(f'{i + 1}/{count} {ends[-1] / 1e6:.1f} MB', file=sys.stderr, flush=True)
    from vla_trt_ros.sim.labelled import LABELS

    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        jpeg=np.concatenate(files),
        ends=np.array(ends),
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        owners=np.array(owners),
        names=np.array(LABELS),
        states=np.array(states, np.float32),
    )


def read(path: Path) -> list[Scene]:
    """What `write` saved, decoded."""
    with np.load(path) as saved:
        data = {name: saved[name] for name in saved.files}
    found, names = [], tuple(data['names'].tolist())
    for i, (opening, gripper) in enumerate(data['states'].tolist()):
        jpeg = data['jpeg'][data['ends'][i] : data['ends'][i + 1]].tobytes()
        mine = data['owners'] == i
        image = np.asarray(Image.open(BytesIO(jpeg)).convert('RGB'))
        found.append(
            Scene(image, data['boxes'][mine], data['labels'][mine], '', opening, gripper, names)
        )
    return found


def main() -> int:
    """Write a file of scenes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.npz')
    parser.add_argument('--images', type=int, default=3000)
    parser.add_argument('--seeds', choices=SEEDS, default='training')
    parser.add_argument('--pictures', type=Path, metavar='DIR', help='write them as files too')
    args = parser.parse_args()
    write(args.out, args.images, SEEDS[args.seeds], args.pictures)
    return 0


if __name__ == '__main__':
    sys.exit(main())
