"""The same policy in a simulator: Meta-World as a robot with cameras, joints and a controller."""
