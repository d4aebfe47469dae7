"""Recorded bags: read into what the nodes see, recorded where ``ros2 bag`` is missing."""
