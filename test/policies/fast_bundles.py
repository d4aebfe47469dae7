"""A small bundle with ONNX graphs and files for cuda_graph of the same random weights."""

import dataclasses

import numpy as np

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import PlatformConfig, StageChoice, load_robot, share_dir
from vla_trt_ros.datatypes import CameraFrame, Observation
from vla_trt_ros.export.frames import synthetic_frames
from vla_trt_ros.export.pi05.fast import add_fast
from vla_trt_ros.export.pi05.job import ExportJob, export, prepare
from vla_trt_ros.export.pi05.parameters import ModelParameters
from vla_trt_ros.export.pi05.random_weights import random_model
from vla_trt_ros.policies.pi05.spec import NANO, ExpertConfig, PrefixConfig, VisionConfig
from vla_trt_ros.policies.registry import load_policy_from

FAST, ONNX = StageChoice('cuda_graph', 'fp32'), StageChoice('onnxruntime', 'fp32')


def platform(vision=FAST, prefix=FAST, denoise=FAST):
    """A platform of these backends."""
    return PlatformConfig('here', 'a test', 'sm_90', vision, prefix, denoise, threads=1)


TINY = dataclasses.replace(
    NANO,
    image_size=56,
    vision=VisionConfig(width=48, depth=1, heads=3, mlp=80),
    prefix=PrefixConfig(width=64, depth=2, heads=2, kv_heads=1, head_dim=32, mlp=96),
    expert=ExpertConfig(width=48, mlp=64),
    prompt_buckets=(24, 48),
    num_steps=(3,),  # exporting ONNX is what takes the time here
)


SERVED = dataclasses.replace(
    TINY,
    prefix=PrefixConfig(width=128, depth=2, heads=4, kv_heads=1, head_dim=256, mlp=256),
    expert=ExpertConfig(width=1024, mlp=4096),
)
"""The smallest that the fast kernels compute."""


def make_bundle(out, config=TINY, onnx=('fp32',), gain=None):
    """``gain`` of random attention, for bundles without ONNX; 1 does not amplify rounding."""
    job = ExportJob(
        out,
        'nano',
        config,
        load_robot('metaworld'),
        onnx,
        fast=('fp32', 'fp8'),
        tokenizer=share_dir() / 'bundles' / 'nano' / 'tokenizer.model',
    )
    weights = export(prepare(job, lambda items, label: items), 'card', {}, lambda name: None)
    if gain is not None:
        weights = ModelParameters(random_model(config, 0, sharpness=gain))
    frames = synthetic_frames(open_bundle(out), 16, ['reach the goal'])
    add_fast(out, weights, ('fp32', 'bf16', 'fp8'), frames)
    return open_bundle(out)


def observation(*views, prompt='reach the goal'):
    rng = np.random.default_rng(7)
    frames = {}
    for view in ('base', 'wrist'):
        pixels = rng.integers(0, 256, 64 * 64 * 3).astype(np.uint8)
        frames[view] = CameraFrame(1, 1, view, 'rgb8', 64, 64, 192, pixels)
    state = np.array([0.1, 0.5, 0.2, 0.4], np.float32)
    return Observation({v: frames[v] for v in views}, state, prompt)


def actions(bundle, chosen, seen, num_steps=3):
    policy = load_policy_from(bundle, chosen)
    try:
        policy.warm_up()
        noise = np.random.default_rng(3).standard_normal(policy.noise_shape).astype(np.float32)
        return policy.infer(seen, num_steps=num_steps, noise=noise).actions
    finally:
        policy.close()
