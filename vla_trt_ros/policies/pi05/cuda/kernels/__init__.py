"""Triton kernels. Each computes one method of operations.Ops."""
