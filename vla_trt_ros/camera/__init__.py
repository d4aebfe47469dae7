"""1. Camera message -> newest frame.

In: CameraFrame (bytes as they arrived). Out: RGB uint8 [H, W, 3] or, for a GPU, the same bytes in
its memory; and the newest frame of each camera with its age and the skew between cameras.
"""
