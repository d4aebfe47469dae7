"""From action chunks to commands: joint layout, timeline, blending, limits and the safety gate.

In: `ActionChunk` and `JointSample`. Out: `Command`, already limited, or nothing. Plain NumPy and
integer nanoseconds; no ROS.
"""
