"""Shipped files load; wrong pairs raise when they are read, not at the first tick."""

from dataclasses import replace

import pytest

from vla_trt_ros.config import (
    PolicyConfig,
    StageChoice,
    available,
    load_platform,
    load_policy,
    load_robot,
)
from vla_trt_ros.errors import ConfigError


@pytest.mark.parametrize(
    'name', ['cpu', 'cpu-int8', 'orin', 'thor', 'rtx', 'h200', 'h200-bf16', 'h200-hybrid']
)
def test_platforms_that_the_launch_file_offers(name):
    assert load_platform(name).name == name


@pytest.mark.parametrize('name', available('robots'))
def test_every_robot_loads_and_can_keep_its_own_limits(name):
    robot = load_robot(name)
    assert {'base', 'wrist'} <= set(robot.cameras)
    for joint in robot.joints:
        # A row may not need more than the velocity limit allows within its time.
        assert joint.max_step * robot.control_rate >= joint.max_velocity * 0.9, joint.name


def test_policies_load():
    assert load_policy('pi05').family == 'pi05'


def test_unknown_name_lists_what_exists():
    with pytest.raises(
        ConfigError, match=r'config/platforms/xavier.yaml does not exist; known: c'
    ):
        load_platform('xavier')


def test_missing_path():
    with pytest.raises(ConfigError, match=r'\./nope.yaml does not exist|nope.yaml does not exist'):
        load_platform('./nope.yaml')


def test_name_in_file_must_be_the_file_name(tmp_path):
    path = tmp_path / 'mine.yaml'
    text = 'name: cpu\ndescription: x\ntarget: cpu\n' + ''.join(
        f'{s}: {{backend: onnxruntime, precision: fp32}}\n'
        for s in ('vision', 'prefix', 'denoise')
    )
    path.write_text(text, encoding='utf-8')
    with pytest.raises(ConfigError, match="name is 'cpu'; a file and its name must agree"):
        load_platform(str(path))
    path.write_text(text.replace('name: cpu', 'name: mine'), encoding='utf-8')
    assert load_platform(str(path)).name == 'mine'


def test_precision_that_the_gpu_lacks():
    with pytest.raises(ConfigError, match='prefix: fp8 does not run on sm_87; choose of fp32'):
        replace(load_platform('orin'), prefix=StageChoice('tensorrt', 'fp8'))


@pytest.mark.parametrize(
    ('stage', 'backend', 'message'),
    [
        ('perception', 'cuda_graph', 'perception: backend cuda_graph runs a policy alone'),
        (
            'prefix',
            'onnx_graph',
            'prefix: backend onnx_graph runs detectors and clas',
        ),
    ],
)
def test_backends_that_run_one_family_alone(stage, backend, message):
    with pytest.raises(ConfigError, match=message):
        replace(load_platform('h200'), **{stage: StageChoice(backend, 'fp32')})


def test_gpu_backend_on_cpu():
    with pytest.raises(ConfigError, match='vision: backend tensorrt needs a GPU'):
        replace(load_platform('cpu'), vision=StageChoice('tensorrt', 'fp32'))


def test_robot_checks():
    robot = load_robot('metaworld')
    joint = robot.joints[0]
    with pytest.raises(ConfigError, match="joint 'hand_x' is listed twice"):
        replace(robot, joints=(joint, joint))
    with pytest.raises(ConfigError, match='joints is empty'):
        replace(robot, joints=())
    with pytest.raises(ConfigError, match='control_rate 0.0 Hz'):
        replace(robot, control_rate=0.0)
    with pytest.raises(ConfigError, match=r'lower 1.0 is not below upper 0.5'):
        replace(joint, lower=1.0, upper=0.5)
    with pytest.raises(ConfigError, match='max_velocity -1.0 must be above 0'):
        replace(joint, max_velocity=-1.0)
    with pytest.raises(ConfigError, match='stop_after 0'):
        replace(robot.safety, stop_after=0)
    with pytest.raises(ConfigError, match='blend_in -1'):
        replace(robot.safety, blend_in=-1)
    with pytest.raises(ConfigError, match='max_age_ms 0'):
        replace(robot.cameras['base'], max_age_ms=0)


def test_camera_topics_are_replaced_by_view():
    robot = load_robot('metaworld').with_camera_topics('base=/a, wrist=/b/c')
    assert [c.topic for c in robot.cameras.values()] == ['/a', '/b/c']
    assert robot.with_camera_topics('') == robot
    with pytest.raises(ConfigError, match="'base' is not view=topic"):
        robot.with_camera_topics('base')


def test_policy_checks():
    with pytest.raises(ConfigError, match='num_steps 4 is none of'):
        PolicyConfig('pi05', 'nano', num_steps=4)


@pytest.mark.parametrize(
    ('name', 'any_stage', 'every_stage'),
    [('cpu', False, False), ('h200', True, True), ('h200-hybrid', True, True)],
)
def test_platform_says_what_a_gpu_runs(name, any_stage, every_stage):
    platform = load_platform(name)
    assert (platform.on_gpu, platform.all_on_gpu) == (any_stage, every_stage)


def test_one_stage_on_the_processor_is_not_all_on_the_gpu():
    platform = load_platform('h200')
    mixed = replace(platform, vision=StageChoice('onnxruntime', 'fp16'))
    assert (mixed.on_gpu, mixed.all_on_gpu) == (True, False)
