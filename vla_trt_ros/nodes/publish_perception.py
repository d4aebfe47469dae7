"""Scenes -> vision_msgs: labels as text, the image's header, pixels of the original image."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    Classification,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
)

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.msg import PerceptionTiming
from vla_trt_ros.nodes.publish import time_msg
from vla_trt_ros.perception.scene import Finding, Scene
from vla_trt_ros.viz.boxes import Box


def header_of(scene: Scene) -> Header:
    """The header of the image that ``scene`` was seen in."""
    return Header(stamp=time_msg(scene.stamp_ns), frame_id=scene.frame_id)


def detections_msg(scene: Scene) -> Detection2DArray:
    """All boxes of a scene. The first result of a box is the detector's, the others are what the
    classifiers make of it.
    """
    header = header_of(scene)
    msg = Detection2DArray(header=header)
    msg.detections = [_detection(finding, header) for finding in scene.findings]
    return msg


def classification_msg(scene: Scene, classifier: str) -> Classification:
    """All labels of ``classifier``, the likeliest first, of the best box it looked at; no results
    where there was none.
    """
    ranked = scene.classes.get(classifier, ())
    msg = Classification(header=header_of(scene))
    msg.results = [ObjectHypothesis(class_id=label, score=score) for label, score in ranked]
    return msg


def label_info_msg(stamp_ns: int, labels: tuple[str, ...], threshold: float) -> LabelInfo:
    """Latched once: the class_id that can come, numbered in the network's order."""
    msg = LabelInfo(header=Header(stamp=time_msg(stamp_ns)), threshold=threshold)
    msg.class_map = [VisionClass(class_id=k, class_name=name) for k, name in enumerate(labels)]
    return msg


def picture_msg(scene: Scene, pixels: Uint8Array) -> Image:
    """``pixels`` uint8 [H, W, 3] RGB under the header of ``scene``."""
    height, width, _ = pixels.shape
    msg = Image(height=height, width=width, encoding='rgb8', step=3 * width)
    msg.header = header_of(scene)
    msg.data = array.array('B', np.ascontiguousarray(pixels).tobytes())
    return msg


def timing_msg(
    scene: Scene, *, begin_ns: int, publish_ns: int, **counts: float
) -> PerceptionTiming:
    """Timing of a look begun at ``begin_ns``; ``counts`` are the message's other fields."""
    return PerceptionTiming(
        header=header_of(scene),
        camera=scene.view,
        width=scene.width,
        height=scene.height,
        detections=len(scene.findings),
        crops=scene.crops,
        image_age_ms=(begin_ns - scene.stamp_ns) / 1e6,
        decode_ms=scene.decode_ms,
        detect_ms=scene.detect_ms,
        classify_ms=scene.classify_ms,
        end_to_end_ms=(publish_ns - scene.stamp_ns) / 1e6,
        uploads=scene.uploads,
        **counts,
    )


def boxes_of(scene: Scene) -> list[Box]:
    """What to draw, the best one on top."""
    boxes = []
    for finding in reversed(scene.findings):
        box = finding.box
        text = ' '.join([f'{box.label} {box.score:.2f}', *(g.label for g in finding.guesses)])
        left, upper = box.x - box.width / 2, box.y - box.height / 2
        boxes.append(Box(left, upper, left + box.width, upper + box.height, text, box.label))
    return boxes


def _detection(finding: Finding, header: Header) -> Detection2D:
    box = finding.box
    msg = Detection2D(header=header)
    guesses = [(box.label, box.score), *((g.label, g.score) for g in finding.guesses)]
    for label, score in guesses:
        result = ObjectHypothesisWithPose()
        result.hypothesis = ObjectHypothesis(class_id=label, score=score)
        msg.results.append(result)
    msg.bbox.center.position.x = box.x
    msg.bbox.center.position.y = box.y
    msg.bbox.size_x = box.width
    msg.bbox.size_y = box.height
    return msg
