"""Datatypes -> messages: the twin of ``vla_trt_ros.messages``."""

from __future__ import annotations

import array

from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from std_msgs.msg import Header

from vla_trt_ros.datatypes import (
    NS,
    ActionChunk,
    ChunkTiming,
    Float32Array,
    Reason,
    State,
    prompt_hash,
)
from vla_trt_ros.msg import ActionChunk as ActionChunkMsg
from vla_trt_ros.msg import PolicyStatus, PolicyTiming


def _qos(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )


# Newest only; matches best-effort and reliable cameras alike.
IMAGE_QOS = _qos(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)
# A short history, to interpolate to the time of exposure.
STATE_QOS = _qos(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 10)
# Never lose the newest, never replay an old one.
COMMAND_QOS = _qos(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)
# Those who join late are told.
LATCHED_QOS = _qos(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)
EVENT_QOS = _qos(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10)
TELEMETRY_QOS = _qos(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 10)


def time_msg(stamp_ns: int) -> Time:
    """Integer nanoseconds to builtin_interfaces/Time."""
    return Time(sec=stamp_ns // NS, nanosec=stamp_ns % NS)


def duration_msg(ns: int) -> Duration:
    """Integer nanoseconds to builtin_interfaces/Duration."""
    return Duration(sec=ns // NS, nanosec=ns % NS)


def float32_field(values: Float32Array) -> array.array[float]:
    """A float32[] field of the values in row-major order, without a Python float each."""
    field = array.array('f')
    field.frombytes(values.astype('float32', copy=False).tobytes())
    return field


def chunk_to_msg(chunk: ActionChunk) -> ActionChunkMsg:
    """The twin of ``messages.chunk_from_msg``."""
    msg = ActionChunkMsg()
    msg.header.stamp = time_msg(chunk.start_ns)
    msg.observation_stamp = time_msg(chunk.observation_ns)
    msg.chunk_id = chunk.chunk_id
    msg.step_index0 = chunk.step_index0
    msg.run_id.uuid = list(chunk.run_id)
    msg.schema_version = ActionChunkMsg.SCHEMA_VERSION
    msg.action_space = int(chunk.action_space)
    msg.rotation = ActionChunkMsg.ROTATION_NONE
    msg.names = list(chunk.names)
    msg.horizon = chunk.horizon
    msg.step_dt = duration_msg(chunk.step_ns)
    msg.actions = float32_field(chunk.actions)
    if chunk.velocities is not None:
        msg.velocities = float32_field(chunk.velocities)
    msg.valid_from = chunk.valid_from
    msg.execute_count = chunk.execute_count
    msg.num_steps = chunk.num_steps
    msg.prompt_hash = chunk.prompt_hash
    msg.policy_hash = chunk.policy_hash
    msg.flags = int(chunk.flags)
    msg.clamped = chunk.clamped
    return msg


def timing_to_msg(
    timing: ChunkTiming, *, observation_ns: int, publish_ns: int, publish_ms: float
) -> PolicyTiming:
    """Timing of a chunk published at ``publish_ns``; ``publish_ms`` is the previous chunk's."""
    end_to_end_ms = (publish_ns - observation_ns) / 1e6
    stages = timing.stages
    return PolicyTiming(
        header=_header(publish_ns),
        chunk_id=timing.chunk_id,
        num_steps=timing.num_steps,
        camera_names=list(timing.cameras),
        image_age_ms=timing.image_age_ms,
        transport_ms=timing.transport_ms,
        camera_skew_ms=timing.camera_skew_ms,
        state_age_ms=timing.state_age_ms,
        frames_received=timing.frames_received,
        frames_dropped=timing.frames_dropped,
        frames_rejected=timing.frames_rejected,
        wait_ms=timing.wait_ms,
        preprocess_ms=stages.preprocess_ms,
        upload_ms=stages.upload_ms,
        vision_ms=stages.vision_ms,
        prefix_ms=stages.prefix_ms,
        denoise_ms=stages.denoise_ms,
        download_ms=stages.download_ms,
        postprocess_ms=stages.postprocess_ms,
        publish_ms=publish_ms,
        engine_ms=stages.engine_ms,
        inference_ms=timing.inference_ms,
        end_to_end_ms=end_to_end_ms,
        deadline_ms=timing.deadline_ms,
        deadline_met=timing.inference_ms <= timing.deadline_ms,
        consumed_steps=timing.consumed_steps,
        uploads=timing.uploads,
        upload_bytes=timing.upload_bytes,
        device_memory_mib=timing.device_memory_mib,
    )


def status_to_msg(
    now_ns: int,
    node: str,
    state: State,
    reason: Reason,
    text: str,
    *,
    prompt: str = '',
    **fields: object,
) -> PolicyStatus:
    """PolicyStatus of a node; ``fields`` are the message's other fields by name."""
    return PolicyStatus(
        header=_header(now_ns),
        node=node,
        state=int(state),
        reason=int(reason),
        text=text,
        prompt=prompt,
        prompt_hash=prompt_hash(prompt),
        **fields,
    )


def diagnostics_msg(now_ns: int, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """One DiagnosticArray of all parts of a node."""
    return DiagnosticArray(header=_header(now_ns), status=list(statuses))


def diagnostic(
    name: str, level: bytes, message: str, hardware_id: str, values: dict[str, object]
) -> DiagnosticStatus:
    """One part of a node, ``name`` as '<node>: <part>'; keys of ``values`` carry their units."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=k, value=_text(v)) for k, v in values.items()],
    )


def _text(value: object) -> str:
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def _header(stamp_ns: int) -> Header:
    return Header(stamp=time_msg(stamp_ns))
