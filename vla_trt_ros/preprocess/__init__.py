"""Frames, joint state and prompt -> what the network reads, and actions back to robot units."""
