"""Memory and time of a network on paper: arithmetic alone, no GPU, no ROS, no torch."""
