"""Vision-language-action policies on a robot: cameras in, action chunks out, through ROS 2.

The data's way, room by room:

    camera message -> nodes/ -> messages -> camera/ (decode, newest frame, age and skew)
      -> preprocess/ (resize with pad, normalise, tokenise)
      -> policies/pi05 (vision, prefix, denoise) through backends/
      -> actions/ (robot layout, timeline, blending, limits, gate)
      -> nodes/ -> controller

``pipeline`` walks that way once per tick and imports no ROS, so a live robot and a bag take the
same path. ``export`` is the workshop that makes bundles; a robot never imports it.
"""
