"""What this machine has and lacks, and the line that mends it. With --live it also listens to the
robot's topics for a few seconds: arrival ratio, encodings, clocks, joint names, QoS, and whether
a controller is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from vla_trt_ros.cli import checks
from vla_trt_ros.cli.checks import Finding
from vla_trt_ros.cli.gpu_checks import gpu
from vla_trt_ros.cli.live_checks import live
from vla_trt_ros.config import load_platform, load_policy, load_robot

_MARKS = {'ok': ' ok ', 'warn': 'warn', 'fail': 'FAIL', 'skip': ' -  '}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For which robot, platform and bundle; whether to listen."""
    parser.add_argument('--robot', default='metaworld', help='file of config/robots, or a path')
    parser.add_argument('--platform', default='cpu', help='file of config/platforms, or a path')
    parser.add_argument('--policy', default='pi05', help='file of config/policies, or a path')
    parser.add_argument('--bundle', default='', help="name or path (default: the policy file's)")
    parser.add_argument('--live', action='store_true', help='listen to the running robot')
    parser.add_argument('--seconds', type=float, default=5.0, help='how long to listen')
    parser.add_argument('--namespace', default='', help='of the robot to listen to')
    parser.add_argument('--cameras', default='', help='as given to up: base=/a/image,...')
    parser.add_argument('--json', action='store_true', help='findings as JSON')


def run(args: argparse.Namespace) -> int:
    """Print every finding; status 1 where one is FAIL."""
    findings = []
    for finding in _examine(args):
        findings.append(finding)
        if not args.json:
            print(f'[{_MARKS[finding.status]}] {finding.name}: {finding.text}')
            if finding.remedy:
                print(f'         -> {finding.remedy}', flush=True)
    failed = sum(f.status == 'fail' for f in findings)
    if args.json:
        print(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        print(f'{len(findings)} checks, {failed} failed')
    return 1 if failed else 0


def _examine(args: argparse.Namespace) -> Iterator[Finding]:
    platform = load_platform(args.platform)
    robot = load_robot(args.robot).with_camera_topics(args.cameras)
    bundle = args.bundle or load_policy(args.policy).bundle
    yield from checks.machine()
    yield from checks.ros()
    yield from checks.transport()
    yield from checks.backends(platform)
    yield from checks.bundle(bundle, platform, robot)
    yield from gpu(bundle, platform)
    yield from checks.simulator()
    if args.live:
        yield from live(robot, args.seconds, namespace=args.namespace)
