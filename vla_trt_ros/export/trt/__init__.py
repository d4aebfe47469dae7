"""ONNX graphs of a bundle -> TensorRT engines. `bundle_build` is the way in."""
