"""Recorded episodes on disk, in LeRobot's data set format v3.0 with images as PNG, lossless."""
