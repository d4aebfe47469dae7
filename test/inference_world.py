"""An inference thread over a fake policy, and cameras that are fed by hand."""

import time
from collections.abc import Callable

from fakes import joints, rgb_frame

from vla_trt_ros.config import PolicyConfig, load_platform, load_robot
from vla_trt_ros.nodes.inference import InferenceThread
from vla_trt_ros.pipeline import Pipeline

MS = 1_000_000  # nanoseconds


class World:
    """``policy`` on the Meta-World robot's two cameras. ``results`` and ``states`` hold what the
    thread told; it is not started.
    """

    def __init__(self, policy, max_rate: float = 1000.0) -> None:
        self.policy = policy
        settings = PolicyConfig('pi05', 'fake', max_rate=max_rate)
        self.pipeline = Pipeline(policy, load_robot('metaworld'), load_platform('cpu'), settings)
        self.pipeline.set_prompt('go')
        self.results: list = []
        self.states: list = []
        self.thread = InferenceThread(self.pipeline, time.time_ns, self.take, self.hear)

    def take(self, result) -> None:
        """Called with each result."""
        self.results.append(result)

    def hear(self, state) -> None:
        """Called with each change of state."""
        self.states.append(state)

    def feed(self, age_ms: float = 0.0) -> None:
        """A frame of each camera and a joint state, exposed ``age_ms`` ago."""
        now = time.time_ns() - int(age_ms * MS)
        self.pipeline.offer_joints(joints(now, hand_x=0, hand_y=0.5, hand_z=0.2, gripper=1))
        self.pipeline.offer_image('base', rgb_frame(now))
        self.pipeline.offer_image('wrist', rgb_frame(now))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, five seconds at most."""
        end = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)
