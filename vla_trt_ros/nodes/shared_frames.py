"""The camera slots of a process's policy node, for the other nodes of that process."""

from __future__ import annotations

from dataclasses import dataclass

from vla_trt_ros.camera.latest import LatestFrames


@dataclass(slots=True)
class SharedFrames:
    """One object for both nodes: the policy node sets ``frames`` while it is configured.

    What a slot holds was received once, and is on the GPU once. Read with `LatestFrames.beside`.
    """

    frames: LatestFrames | None = None
