"""ROS plumbing: parameters and messages in, one call into a ROS-free module, messages out.

The only folder that imports rclpy or message classes.
"""
