"""A part of a replay through a policy node, in place of a pipeline in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vla_trt_ros.bags.reader import BagReader
from vla_trt_ros.config import load_policy
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.nodes.bag_player import Player
from vla_trt_ros.nodes.replay_node import policy_process
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.replay.run import Watch, judge_ticks
from vla_trt_ros.replay.session import Request
from vla_trt_ros.replay.settings import Setting


def run_part_through_node(
    bag: BagReader,
    request: Request,
    setting: Setting,
    folder: Path,
    conditions: dict[str, Any],
    *,
    watch: Watch,
) -> None:
    """`replay.run.run_part` through a policy node in a process of its own."""
    policy = replace(
        load_policy(request.policy), num_steps=setting.num_steps, seed=conditions['seed']
    )
    config = read_config(setting.bundle)
    prompt = request.manner.prompt or policy.prompt
    path = setting.bundle.path
    with (
        policy_process(request.robot, setting.platform, policy, path, prompt) as node,
        Player(
            request.robot,
            setting.bundle,
            node,
            views=config.views,
            paced=request.clock == 'real',
            follow_prompts=not request.manner.prompt,
        ) as player,
    ):
        found = judge_ticks(
            bag,
            player.run,
            request.robot,
            config.horizon,
            request.manner,
            folder,
            conditions,
            lambda: dict(player.counts.counts),
            watch=watch,
        )
    if not found:
        raise ConfigError(
            f'{bag.paths[0]}: the node made no chunk of {player.counts["pairs"]} frame pairs; '
            'replay without --through-node says why.'
        )
