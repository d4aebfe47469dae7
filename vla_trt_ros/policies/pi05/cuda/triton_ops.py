"""operations.Ops with Triton kernels, library GEMMs and library attention."""

from __future__ import annotations

from vla_trt_ros.policies.pi05.cuda.decode_ops import DecodeOps
from vla_trt_ros.policies.pi05.cuda.prefix_ops import PrefixOps
from vla_trt_ros.policies.pi05.cuda.serves import refusal
from vla_trt_ros.policies.pi05.spec import Pi05Config


class TritonOps(PrefixOps, DecodeOps):
    """The fast operations, cut as ``tuning`` says, for ``horizon`` action tokens."""

    @staticmethod
    def serves(config: Pi05Config) -> str:
        """'' if the measured tiles fit a network of this size, else what does not fit.

        Asks nothing of the GPU; `TorchOps` serves any size.
        """
        return refusal(config)
