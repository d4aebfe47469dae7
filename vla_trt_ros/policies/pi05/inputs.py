"""Camera frames and prompt tokens -> the network's input buffers, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vla_trt_ros.backends.base import Array
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.datatypes import CameraFrame, Float32Array
from vla_trt_ros.preprocess.levels import scale_planes
from vla_trt_ros.preprocess.resize import resize_with_pad
from vla_trt_ros.preprocess.tokenize import Prompt


class ImageInput:
    """Writes views into ``pixels`` float32 [V, 3, S, S] and says which places show one.

    With ``compact`` the views that have a frame come first, and a missing one leaves no gap.
    """

    def __init__(
        self, views: tuple[str, ...], pixels: Float32Array, *, compact: bool = False
    ) -> None:
        self._views = views
        self._pixels = pixels
        self._compact = compact
        self._size = pixels.shape[2], pixels.shape[3]

    def write(self, frames: Mapping[str, CameraFrame]) -> tuple[bool, ...]:
        """Fill the buffer; per place, whether it shows a frame. One that does not is left black.

        Raises BadImage for a frame that does not decode.
        """
        here = [frames.get(view) for view in self._views]
        if self._compact:
            here.sort(key=lambda frame: frame is None)
        for frame, planes in zip(here, self._pixels, strict=True):
            if frame is None:
                planes.fill(-1.0)
            else:
                scale_planes(resize_with_pad(to_rgb(frame), *self._size), planes)
        return tuple(frame is not None for frame in here)


def write_prompt(prompt: Prompt, there: Sequence[bool], tokens: Array, mask: Array) -> None:
    """Fill ``tokens`` int64 [P], and ``mask`` bool [V * T + P] with what counts: the tokens of the
    views that are ``there``, in the order of the pixels, and the prompt without its padding.
    """
    count, images = len(prompt.tokens), mask.size - tokens.size
    tokens[:count] = prompt.tokens
    tokens[count:] = 0
    mask[:images].reshape(len(there), -1)[:] = np.asarray(there)[:, None]
    mask[images : images + count] = True
    mask[images + count :] = False
