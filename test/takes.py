"""Small made-up episodes for the tests of data sets."""

import numpy as np

from vla_trt_ros.sim.dataset.layout import Layout
from vla_trt_ros.sim.dataset.staging import Take

SHAPE = Layout(
    robot='metaworld',
    fps=20,
    views=('base', 'wrist'),
    width=20,
    height=16,
    joints=('hand_x', 'hand_y', 'hand_z', 'gripper'),
    horizon=10,
)


def take(scene='reach', seed=0, frames=5, prompt='reach the goal', shape=SHAPE, noise=0.3):
    """Every number and pixel differs between episodes and frames."""
    rng = np.random.default_rng([seed, len(scene)])
    joints = len(shape.joints)

    def rows(*size):
        return rng.normal(size=(frames, *size)).astype(np.float32)

    images = {
        view: rng.integers(0, 256, (frames, shape.height, shape.width, 3), np.uint8)
        for view in shape.views
    }
    return Take(
        scene=scene,
        seed=seed,
        noise=noise,
        prompt=prompt,
        images=images,
        state=rows(joints),
        action=rows(joints),
        expert_chunk=rows(shape.horizon, joints),
        executed=rows(joints),
    )
