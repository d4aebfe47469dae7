"""Pi0.5 written to be fast: folded weights, fused kernels, stages for a CUDA graph."""
