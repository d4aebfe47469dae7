"""operations.Ops with Triton kernels, library GEMMs and library attention."""

from __future__ import annotations

from vla_trt_ros.policies.pi05.cuda.decode_ops import DecodeOps
from vla_trt_ros.policies.pi05.cuda.prefix_ops import PrefixOps


class TritonOps(PrefixOps, DecodeOps):
    """The fast operations, cut as ``tuning`` says, for ``horizon`` action tokens."""
