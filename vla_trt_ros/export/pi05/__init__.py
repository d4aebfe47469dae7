"""Pi0.5 in plain PyTorch, and the model cut into the stages of policies/pi05/spec.py."""
