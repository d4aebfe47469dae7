"""The workshop: PyTorch model, ONNX export, bundle writer. A robot never imports it."""
