"""What a replay through a node reads back from its messages."""

from __future__ import annotations

from vla_trt_ros.datatypes import ChunkTiming, StageTimes
from vla_trt_ros.msg import PolicyTiming


def timing_from_msg(msg: PolicyTiming) -> ChunkTiming:
    """The twin of ``publish.timing_to_msg``, for what a report uses."""
    return ChunkTiming(
        chunk_id=int(msg.chunk_id),
        num_steps=int(msg.num_steps),
        cameras=tuple(msg.camera_names),
        image_age_ms=tuple(msg.image_age_ms),
        transport_ms=tuple(msg.transport_ms),
        frames_received=tuple(msg.frames_received),
        frames_dropped=tuple(msg.frames_dropped),
        frames_rejected=tuple(msg.frames_rejected),
        camera_skew_ms=msg.camera_skew_ms,
        state_age_ms=msg.state_age_ms,
        wait_ms=msg.wait_ms,
        stages=StageTimes(
            preprocess_ms=msg.preprocess_ms,
            vision_ms=msg.vision_ms,
            prefix_ms=msg.prefix_ms,
            denoise_ms=msg.denoise_ms,
        ),
        inference_ms=msg.inference_ms,
        deadline_ms=msg.deadline_ms,
    )
