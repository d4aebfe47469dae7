"""From a trained detector or classifier to a bundle."""
