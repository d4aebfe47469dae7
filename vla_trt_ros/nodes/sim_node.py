"""Meta-World as a robot on the network: camera images and joint states out, commands in.

Publishes the image topics and joint states that the robot file names, with ``sim/task_prompt``
(what to tell the policy) and ``sim/success``, both latched. Follows the robot file's controller
topic as ros2_control would. ``sim/task`` (std_msgs/String) or the parameters ``task`` and ``seed``
switch the scene; set both at once to begin a certain episode. Everything else is
``vla_trt_ros.sim``.
"""

from __future__ import annotations

import sys
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.errors import BadAction, ConfigError
from vla_trt_ros.nodes.params import Param, declare, on_change
from vla_trt_ros.nodes.publish import COMMAND_QOS, EVENT_QOS, IMAGE_QOS, LATCHED_QOS
from vla_trt_ros.nodes.publish_inputs import image_msg, joints_msg
from vla_trt_ros.nodes.run import run_node
from vla_trt_ros.sim.env import Environment, camera_frame
from vla_trt_ros.sim.metaworld import MetaWorld
from vla_trt_ros.sim.prompts import task_name
from vla_trt_ros.sim.robot import SimulatedRobot, check_seed
from vla_trt_ros.sim.trajectory_controller import trajectory_from_msg
from vla_trt_ros.sim.views import BASE_VIEWS

PARAMS = (
    Param('robot', 'metaworld', 'robot file, a name in config/robots or a path'),
    Param('task', 'reach', 'Meta-World task, with or without -v3', live=True),
    Param('seed', 0, 'seed of the first episode; the next one adds 1', live=True),
    Param('episode_steps', 0, 'control steps until an episode is reset; 0: never'),
    Param('image_width', 224, 'pixels, both cameras', bounds=(16, 640)),
    Param('image_height', 224, 'pixels, both cameras', bounds=(16, 480)),
    Param('encoding', 'rgb8', 'encoding of both images', choices=('rgb8', 'bgr8')),
    Param('view', 'near', 'where the base camera stands', choices=tuple(BASE_VIEWS)),
    Param(
        'controller',
        '',
        'kind of controller to play; empty: as the robot file says',
        choices=('', 'trajectory', 'position'),
    ),
)


class SimNode(Node):
    """Plumbing around a ``SimulatedRobot``. ConfigError: a task, size or robot that cannot be.

    The environment renders from the first timer callback on, so OpenGL stays in one thread: that
    of the executor.
    """

    robot: SimulatedRobot | None = None  # rclpy destroys a node whose __init__ failed, too

    def __init__(self) -> None:
        super().__init__('sim')
        self._params = declare(self, PARAMS)
        robot = load_robot(self._params['robot'])
        _check(robot, self._params)
        self._rate = robot.control_rate
        controller = robot.controller.of_kind(self._params['controller'])
        self.robot = SimulatedRobot(
            self._make,
            self._params['task'],
            controller=controller.kind,
            seed=self._params['seed'],
            episode_steps=self._params['episode_steps'],
        )
        self._images = {
            name: self.create_publisher(Image, camera.topic, IMAGE_QOS)
            for name, camera in robot.cameras.items()
        }
        self._joints = self.create_publisher(JointState, robot.joint_states_topic, EVENT_QOS)
        self._prompt = self.create_publisher(String, 'sim/task_prompt', LATCHED_QOS)
        self._success = self.create_publisher(Bool, 'sim/success', LATCHED_QOS)
        if controller.kind == 'trajectory':
            kind, callback = JointTrajectory, self._on_trajectory
        else:
            kind, callback = Float64MultiArray, self._on_positions
        self.create_subscription(kind, controller.topic, callback, COMMAND_QOS)
        self.create_subscription(String, 'sim/task', self._on_task, EVENT_QOS)
        on_change(self, self._check_change, self._apply_change)
        self._told: bool | None = None
        self._episodes = 0
        self._announce()
        self.create_timer(1.0 / self._rate, self._tick)

    def destroy_node(self) -> None:
        """Free the simulation with the node."""
        super().destroy_node()
        if self.robot is not None:
            self.robot.close()

    def _make(self, task: str) -> Environment:
        return MetaWorld(
            task,
            width=self._params['image_width'],
            height=self._params['image_height'],
            view=self._params['view'],
            control_rate=self._rate,
        )

    def _tick(self) -> None:
        began = self.get_clock().now()
        self.robot.step(began.nanoseconds)
        stamp_ns = self.get_clock().now().nanoseconds
        self._publish_joints(stamp_ns)
        for name, image in self.robot.env.render().items():
            frame = camera_frame(
                image, stamp_ns, f'{name}_camera_optical_frame', self._params['encoding']
            )
            self._images[name].publish(image_msg(frame))
        self._publish_success()
        took = (self.get_clock().now() - began).nanoseconds / 1e9
        # The first step of an environment also makes its OpenGL context.
        if took * self._rate > 1.0 and self.robot.env.steps > 1:
            self.get_logger().warning(
                f'a step took {took * 1e3:.0f} ms of {1e3 / self._rate:.0f} ms: this machine is '
                'too slow or too busy for the image size; lower image_width and image_height.',
                throttle_duration_sec=5.0,
            )

    def _publish_joints(self, stamp_ns: int) -> None:
        self._joints.publish(joints_msg(self.robot.env.observe(stamp_ns)))

    def _publish_success(self) -> None:
        success = self.robot.env.success
        if success != self._told:
            self._told = success
            self._success.publish(Bool(data=success))
        if self.robot.episodes != self._episodes:
            self._episodes = self.robot.episodes
            solved = f'{self.robot.successes} of {self._episodes} episodes solved'
            self.get_logger().info(f'{self.robot.env.task}: {solved}')

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        try:
            now_ns = self.get_clock().now().nanoseconds
            self.robot.offer_trajectory(trajectory_from_msg(msg), now_ns)
        except BadAction as error:
            self._refused(error)

    def _on_positions(self, msg: Float64MultiArray) -> None:
        try:
            self.robot.offer_positions(list(msg.data))
        except BadAction as error:
            self._refused(error)

    def _refused(self, error: BadAction) -> None:
        self.get_logger().warning(f'command refused: {error}', throttle_duration_sec=5.0)

    def _on_task(self, msg: String) -> None:
        result = self.set_parameters([Parameter('task', value=msg.data)])[0]
        if not result.successful:
            self.get_logger().error(result.reason)

    def _check_change(self, changed: dict[str, Any]) -> None:
        if 'task' in changed:
            task_name(changed['task'])
        if 'seed' in changed:
            check_seed(changed['seed'])

    def _apply_change(self, changed: dict[str, Any]) -> None:
        task = task_name(changed.get('task', self.robot.env.task))
        if 'seed' not in changed and task == self.robot.env.task:
            return
        self.robot.switch_task(task, changed.get('seed'))
        self._episodes = 0
        # Before the one who asked hears that it is done: it must not take the old one for its own.
        self._publish_success()
        self._announce()

    def _announce(self) -> None:
        env = self.robot.env
        self._prompt.publish(String(data=env.prompt))
        self.get_logger().info(f'task {env.task}: "{env.prompt}"')


def _check(robot: RobotConfig, params: dict[str, Any]) -> None:
    if robot.name != 'metaworld':
        raise ConfigError(f"the simulator plays robot 'metaworld', not {robot.name!r}.")
    compressed = [name for name, camera in robot.cameras.items() if camera.compressed]
    if compressed or set(robot.cameras) != {'base', 'wrist'}:
        raise ConfigError(
            f'{robot.name}: the simulator has two raw cameras, base and wrist; the file asks for '
            f'{", ".join(robot.cameras)}{" (compressed)" if compressed else ""}.'
        )
    if params['encoding'] not in ('rgb8', 'bgr8'):
        raise ConfigError(f'encoding {params["encoding"]!r} is none of rgb8, bgr8.')


def main(args: list[str] | None = None) -> int:
    """Entry point of lib/vla_trt_ros/sim_node."""
    return run_node(SimNode, args)


if __name__ == '__main__':
    sys.exit(main())
