"""Which networks the fast kernels compute. Neither torch nor a GPU is needed to ask."""

from __future__ import annotations

from vla_trt_ros.policies.pi05.spec import Pi05Config

LONGEST_HORIZON = 64
"""Rows that attention's suffix part and the decode tiles hold."""


def refusal(config: Pi05Config) -> str:
    """'' if the tiles of tuning.py divide every product of ``config``, else why not."""
    prefix, expert = config.prefix, config.expert
    for name, value, unit in (
        ('expert width', expert.width, 1024),
        ('expert mlp', expert.mlp, 4096),
        ('heads * head_dim', prefix.heads * prefix.head_dim, 1024),
    ):
        if value % unit:
            return f'{name} {value} is not a multiple of {unit}'
    if prefix.kv_heads != 1:
        return f'kv_heads is {prefix.kv_heads}, the kernels share one'
    if prefix.head_dim not in (32, 64, 128, 256):
        return f'head_dim {prefix.head_dim} is not 32, 64, 128 or 256'
    if config.horizon > LONGEST_HORIZON:
        return f'horizon {config.horizon} is longer than {LONGEST_HORIZON}'
    for name, value in (('vision width', config.vision.width), ('prefix width', prefix.width)):
        if value % 16:
            return f'{name} {value} is not a multiple of 16'
    if config.action_dim not in (16, 32, 64):
        return f'action_dim {config.action_dim} is not 16, 32 or 64'
    return ''
