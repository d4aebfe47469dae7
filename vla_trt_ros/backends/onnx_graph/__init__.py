"""An ONNX file run by torch's operations, captured in a CUDA graph: detectors on a GPU without
TensorRT.
"""
