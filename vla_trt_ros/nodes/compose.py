"""The wiring of a whole robot in one process, top to bottom.

Camera frames stay in one process, so that the policy and the detectors share one upload. The
command node is the safety gate and may run apart, which is what launch and ``vla-trt up`` do: it
then keeps the arm safe even if this process dies. The simulator belongs in a process of its own
wherever timing matters; here it shares one interpreter with the policy.

    camera topics -> PolicyNode -> action_chunk -> CommandNode -> controller topic
    joint_states  ->     "      and             ->      "
                         |                            |
                    camera slots -> PerceptionNode -> detections
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from vla_trt_ros.nodes.command_node import CommandNode
from vla_trt_ros.nodes.policy_node import PolicyNode
from vla_trt_ros.nodes.run import run_node
from vla_trt_ros.nodes.shared_frames import SharedFrames


def _sim_node() -> Node:
    from vla_trt_ros.nodes.sim_node import SimNode  # MuJoCo, which a robot does not have

    return SimNode()


def _perception_node(shared: SharedFrames | None) -> Node:
    # The only one that needs vision_msgs.
    from vla_trt_ros.nodes.perception_node import PerceptionNode

    return PerceptionNode(shared)


SWITCH = 0.0005
"""Seconds after which a thread hands Python over to another that wants it. By default 0.005: the
policy, done on its engine, would wait that long for what a detector's thread makes of its boxes.
"""
NAMES = ('sim', 'command', 'policy', 'perception')


def compose(names: Sequence[str]) -> list[Node]:
    """The nodes of ``names``, of NAMES, in the order in which they begin; none where one fails."""
    shared = SharedFrames() if 'policy' in names else None
    makers: dict[str, Callable[[], Node]] = {
        'sim': _sim_node,
        'command': CommandNode,
        'policy': lambda: PolicyNode(shared),
        'perception': lambda: _perception_node(shared),
    }
    if 'perception' in names:
        sys.setswitchinterval(SWITCH)
    made: list[Node] = []
    try:
        for name in NAMES:
            if name in names:
                made.append(makers[name]())  # noqa: PERF401
    except BaseException:
        for node in reversed(made):
            node.destroy_node()
        raise
    return made


def main(args: list[str] | None = None) -> int:
    """Entry point of lib/vla_trt_ros/vla_node: the named nodes, by default command and policy."""
    args = sys.argv if args is None else args
    parser = argparse.ArgumentParser(prog='vla_node', description=__doc__)
    parser.add_argument('nodes', nargs='*', help=f'of {", ".join(NAMES)}; default: command policy')
    chosen = parser.parse_args(remove_ros_args(args)[1:]).nodes or ['command', 'policy']
    for name in chosen:
        if name not in NAMES:
            parser.error(f'{name!r} is none of {", ".join(NAMES)}.')
    return run_node(lambda: compose(chosen), args)


if __name__ == '__main__':
    sys.exit(main())
