"""From names of files to a `Pipeline` that is ready to tick: node, replay and tests start here."""

from __future__ import annotations

from dataclasses import replace

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import (
    PlatformConfig,
    RobotConfig,
    find_file,
    load_platform,
    load_policy,
    load_robot,
)
from vla_trt_ros.pipeline import Pipeline
from vla_trt_ros.policies.registry import load_policy_from


def load_pipeline(
    *,
    robot: str | RobotConfig,
    platform: str | PlatformConfig = 'cpu',
    policy: str = 'pi05',
    bundle: str = '',
    cameras: str = '',
    num_steps: int | None = None,
    prompt: str = '',
    overlap: bool = False,
) -> Pipeline:
    """Load, check against each other and warm up.

    Names are files of config/ or paths; an empty ``bundle`` or ``prompt`` is the policy file's;
    ``cameras`` replaces topics as 'base=/a/image,wrist=/b/image'; ``overlap`` as in
    `load_policy_from`. What cannot work raises a VlaError before the first engine is loaded.
    """
    platform_config = load_platform(platform) if isinstance(platform, str) else platform
    robot_config = load_robot(robot) if isinstance(robot, str) else robot
    settings = load_policy(policy)
    if num_steps is not None:
        settings = replace(settings, num_steps=num_steps)
    robot_config = robot_config.with_camera_topics(cameras)
    opened = open_bundle(find_file('bundles', bundle or settings.bundle, ''))
    opened.check_robot(robot_config)
    loaded = load_policy_from(opened, platform_config, seed=settings.seed, overlap=overlap)
    try:
        pipeline = Pipeline(loaded, robot_config, platform_config, settings)
        if prompt or settings.prompt:
            pipeline.set_prompt(prompt or settings.prompt)
        loaded.warm_up()
    except BaseException:
        loaded.close()
        raise
    return pipeline
