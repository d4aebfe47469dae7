"""What the policy node tells about itself: PolicyInfo once, status and diagnostics each second."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from vla_trt_ros.config import STAGES
from vla_trt_ros.datatypes import Counters, Reason, State
from vla_trt_ros.freshness import Freshness
from vla_trt_ros.gpu.device import device_name
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.msg import PolicyInfo, PolicyStatus
from vla_trt_ros.nodes.inference import InferenceThread
from vla_trt_ros.nodes.publish import (
    diagnostic,
    diagnostics_msg,
    duration_msg,
    status_to_msg,
    time_msg,
)
from vla_trt_ros.pipeline import Pipeline

_OK, _WARN, _ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def info_msg(now_ns: int, pipeline: Pipeline) -> PolicyInfo:
    """What is loaded."""
    policy, robot, platform = pipeline.policy, pipeline.robot, pipeline.platform
    height, width = policy.image_size
    choices = [platform.stage(stage) for stage in STAGES]
    msg = PolicyInfo(
        policy=policy.bundle.manifest.family,
        bundle=policy.bundle.name,
        bundle_sha256=policy.bundle.sha256,
        norm_stats_sha256=policy.bundle.norm_stats_sha256,
        robot=robot.name,
        platform=platform.name,
        hardware=cpu_name() if policy.transport == 'host' else device_name(),
        runtime=', '.join(dict.fromkeys(policy.runtimes.values())),
        stages=list(STAGES),
        backends=[c.backend for c in choices],
        precisions=[c.precision for c in choices],
        cameras=list(policy.views),
        image_height=height,
        image_width=width,
        joint_names=list(robot.joint_names),
        horizon=policy.horizon,
        step_dt=duration_msg(robot.step_ns),
        num_steps_available=list(policy.num_steps_available),
        prompt_buckets=list(policy.prompt_buckets),
        transport=policy.transport,
    )
    msg.header.stamp = time_msg(now_ns)
    return msg


def status_msg(
    now_ns: int, pipeline: Pipeline, inference: InferenceThread, *, active: bool, dry_run: bool
) -> PolicyStatus:
    """How it goes."""
    found = inference.state if active else Freshness(Reason.DISABLED, 'not active.')
    waiting = State.HOLDING if inference.chunks else State.WAITING
    state = State.RUNNING if found.ok else waiting
    stats = pipeline.frames.stats().values()
    return status_to_msg(
        now_ns,
        'policy',
        state if active else State.INACTIVE,
        found.reason,
        found.text,
        prompt=pipeline.prompt,
        num_steps=pipeline.num_steps,
        rate_hz=inference.rate_hz,
        dry_run=dry_run,
        chunks=inference.chunks,
        clamped=inference.clamped,
        rejected=sum(s.rejected for s in stats) + pipeline.joints.counters['state_rejected'],
    )


def lost_msg(now_ns: int, why: str) -> PolicyStatus:
    """The status of a node whose GPU is lost."""
    return status_to_msg(now_ns, 'policy', State.INACTIVE, Reason.POLICY_ERROR, why)


def policy_diagnostics(
    now_ns: int, node: str, pipeline: Pipeline, inference: InferenceThread, counters: Counters
) -> DiagnosticArray:
    """One status per camera, for the joint states and for the output."""
    parts = []
    for view, stats in pipeline.frames.stats().items():
        frame = pipeline.frames.newest(view)
        age_ms = (now_ns - frame.stamp_ns) / 1e6 if frame else float('nan')
        topic = pipeline.robot.cameras[view].topic
        fresh = frame is not None and age_ms <= pipeline.robot.cameras[view].max_age_ms
        values = {
            'topic': topic,
            'age (ms)': age_ms,
            'received': stats.received,
            'dropped': stats.dropped,
            'lost in transport': counters[f'{view}_lost'],
            'repeated stamps': stats.repeated,
            'backward stamps': stats.backward,
            'malformed': stats.malformed,
        }
        message = 'fresh' if fresh else 'stale or silent'
        level = _OK if fresh else _ERROR
        parts.append(diagnostic(f'{node}: camera {view}', level, message, topic, values))
    joints = pipeline.joints.freshness(now_ns)
    parts.append(
        diagnostic(
            f'{node}: joint states',
            _OK if joints.ok else _ERROR,
            joints.text or 'fresh',
            pipeline.robot.name,
            dict(pipeline.joints.counters.counts),
        )
    )
    state = inference.state
    values = {
        'rate (Hz)': inference.rate_hz,
        'chunks': inference.chunks,
        'failures': inference.failures,
        'deadline missed': counters['deadline_missed'],
        'num_steps': pipeline.num_steps,
    }
    level = _OK if state.ok else _WARN
    hardware = f'{pipeline.policy.bundle.name} {pipeline.policy.bundle.sha256[:12]}'
    parts.append(diagnostic(f'{node}: output', level, state.text or 'running', hardware, values))
    return diagnostics_msg(now_ns, *parts)
