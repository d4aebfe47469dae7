"""``vla-trt``: a table of verbs; each module has ``add_arguments(parser)`` and ``run(args)``."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from vla_trt_ros.errors import VlaError

VERBS = {
    'demo': 'simulator, policy and command node for half a minute, with a video and a plot',
    'up': 'start the nodes of a robot: what ros2 launch does, without ros2',
    'doctor': 'what this machine has and lacks, and the line that mends it',
    'bench': 'time a bundle on this machine, stage by stage',
    'sim': 'the simulator without ROS: success of a policy (eval)',
    'replay': 'judge a policy by recorded bags: errors, timing, a report (needs the bags extra)',
    'record': 'the topics of a robot into a bag, where ros2 bag is missing',
    'stats': "normalisation statistics of bags, as openpi's norm_stats.json",
    'convert': 'between bags and LeRobot data sets',
    'show': 'what a bundle holds, every hash checked',
    'plan': 'memory and time of a network on paper, stage by stage',
    'parity': 'each precision of a bundle against float32 (workshop: needs the export extra)',
    'export': 'make a bundle (workshop: needs the export extra)',
    'build': 'TensorRT engines of a bundle for one GPU (needs the trt-build extra, or JetPack)',
}
_EXTRAS = {
    **dict.fromkeys(('rclpy', 'sensor_msgs', 'diagnostic_msgs', 'vla_trt_ros.msg'), 'ros'),
    **dict.fromkeys(('metaworld', 'mujoco', 'av', 'matplotlib', 'pyarrow'), 'sim'),
    'rosbags': 'bags',
    **dict.fromkeys(('torch', 'onnx', 'ml_dtypes'), 'export'),
}
_EXAMPLES = """examples:
  vla-trt demo
  vla-trt up sim:=true task:=drawer-open
  vla-trt up platform:=cpu robot:=metaworld num_steps:=3 dry_run:=true
  vla-trt doctor --json
  vla-trt bench --steps 1,3,10 --json bench.json
  vla-trt sim eval --tasks reach,push --episodes 20
"""


def main(words: list[str] | None = None) -> int:
    """Run one verb; its exit status. A VlaError, or an extra that is not installed, is printed
    without a traceback, status 1.
    """
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(
        prog='vla-trt',
        description='Vision-language-action policies on a robot, through ROS 2.',
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest='verb', metavar='VERB')
    chosen = next((w for w in words if not w.startswith('-')), '')
    for name, summary in VERBS.items():
        module = import_module(f'vla_trt_ros.cli.{name}') if name == chosen else None
        verb = verbs.add_parser(
            name,
            help=summary,
            description=(module.__doc__ or summary) if module else summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(verb)
            verb.set_defaults(run=module.run)
    args = parser.parse_args(words)
    if args.verb is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        status: int = args.run(args)
    except VlaError as error:
        print(f'vla-trt {args.verb}: {error}', file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or '')
        if extra is None:
            raise
        remedy = f"pip install 'vla_trt_ros[{extra}]'"
        if extra == 'ros':
            remedy += ', or source the setup.bash of a ROS distribution'
        print(f'vla-trt {args.verb}: {error.name} is not installed: {remedy}.', file=sys.stderr)
        return 1
    return status


if __name__ == '__main__':
    sys.exit(main())
