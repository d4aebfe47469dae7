"""All denoise steps in one launch of kernels/denoise.cu: what it serves, its weights in order.

128 blocks each own a slice of every FP8 matrix of the expert. A slice stands in memory as one
piece, in the tiles that the matrix instructions read, so that bulk copies bring it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.kernels import Kernel
from vla_trt_ros.policies.pi05.cuda.buffers import Buffers
from vla_trt_ros.policies.pi05.cuda.fold import FastWeights, GemmaLayer, Linear
from vla_trt_ros.policies.pi05.cuda.tables import StepTables

SOURCE = Path(__file__).parent / 'kernels' / 'denoise.cu'
TARGET = 'sm_90a'
BLOCKS, THREADS = 128, 384
PACES = {32: 250, 64: 400}
"""Cycles of `pace`, up to so many rows."""
SHARED = (64 + 32 + 16 + 64 + 32 + 16 + 2) * 1024
"""Bytes of a block: activations, four slices of weights, sums, the rest with alignment."""
WORKSPACE = 10 * 1024 * 1024
"""As layout.cu has it, rounded up; the compiler compares them."""
COUNTERS = 4096
KEYS = 1024
"""The most prefix and suffix tokens: 16 parts of 64 keys."""
HORIZON = 64
SIZES = (1024, 4096, 8, 256, 32)
"""Width and MLP of the expert, heads, their width, latent columns."""


class Arguments(ctypes.Structure):
    """The kernel's struct of this name."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                'weights',
                'scales',
                'inverse',
                'factor',
                'gate',
                'qkv_shift',
                'up_shift',
                'out_shift',
                'in_weight',
                'in_bias',
                'out_weight',
                'cosines',
                'sines',
                'keys',
                'values',
                'valid',
                'latents',
                'tiles',
                'workspace',
                'counters',
            )
        ),
        *(
            (name, ctypes.c_int)
            for name in ('layers', 'steps', 'horizon', 'rows', 'positions', 'pace')
        ),
    )


def defines(horizon: int) -> dict[str, int]:
    """The numbers that the kernel leaves open."""
    return {'HORIZON': horizon, 'WORKSPACE': WORKSPACE}


def pace(horizon: int) -> int:
    """Cycles between pieces of 4 KiB that a block asks for: what is asked for faster holds up what
    blocks exchange.
    """
    return next(cycles for rows, cycles in PACES.items() if horizon <= rows)


def refusal(weights: FastWeights, buffers: Buffers) -> str:
    """'' if the kernel computes this network on this GPU, else why not."""
    config = weights.config
    sizes = (
        config.expert.width,
        config.expert.mlp,
        config.prefix.heads,
        config.prefix.head_dim,
        config.action_dim,
    )
    if sizes != SIZES or config.prefix.kv_heads != 1:
        return f'the expert has sizes {sizes}, the kernel {SIZES}'
    if not all(x.quantized for layer in weights.expert for x in _products(layer)):
        return 'the expert is not FP8'
    if len(weights.expert) % 2:
        return f'{len(weights.expert)} layers are an odd number'
    if config.horizon > HORIZON:
        return f'horizon {config.horizon} is longer than {HORIZON}'
    most = buffers.cos.shape[0] - buffers.rows + config.horizon
    if most > KEYS:
        return f'{most} keys are more than {KEYS}'
    device = weights.embedding.device
    if device.type != 'cuda' or torch.cuda.get_device_capability(device) != (9, 0):
        return 'the GPU has not compute capability 9.0'
    if torch.cuda.get_device_properties(device).multi_processor_count < BLOCKS:
        return f'the GPU has fewer than {BLOCKS} multiprocessors'
    return ''


class PersistentDenoise:
    """One set of weights, ready for `run`. BackendError if `refusal` has a reason."""

    def __init__(self, weights: FastWeights, buffers: Buffers) -> None:
        reason = refusal(weights, buffers)
        if reason:
            raise BackendError(f'denoise steps in one kernel: {reason}.')
        device = weights.embedding.device
        self._kernel = Kernel(
            SOURCE,
            'denoise',
            target=TARGET,
            defines=defines(weights.config.horizon),
            shared=SHARED,
            cooperative=True,
        )
        self._packed = torch.cat([packed_layer(layer) for layer in weights.expert])
        layers = [_products(layer) for layer in weights.expert]
        self._scales = torch.stack([torch.cat([_scale(x) for x in parts]) for parts in layers])
        inverse = [[1.0 / x.act for x in parts] for parts in layers]
        self._inverse = torch.tensor(inverse, dtype=torch.float32, device=device)
        # All ones are what is not there yet; a run leaves the buffers so.
        self._workspace = torch.full((WORKSPACE,), 255, dtype=torch.uint8, device=device)
        tiles = len(weights.expert) * KEYS * 2 * 256
        self._tiles = torch.zeros(tiles, dtype=torch.bfloat16, device=device)
        self._counters = torch.zeros(COUNTERS, dtype=torch.int32, device=device)

    def run(self, weights: FastWeights, buffers: Buffers, tables: StepTables) -> None:
        """Queues all steps of ``tables`` on the current stream, latents[0] to latents[steps]."""
        assert weights.action_in.bias is not None
        tensors = (
            self._packed,
            self._scales,
            self._inverse,
            tables.factor,
            tables.gate,
            tables.qkv_shift,
            tables.gate_up_shift,
            tables.out_shift,
            weights.action_in.weight,
            weights.action_in.bias,
            weights.action_out.weight,
            buffers.cos,
            buffers.sin,
            buffers.keys,
            buffers.values,
            buffers.valid,
            buffers.latents,
            self._tiles,
            self._workspace,
            self._counters,
        )
        assert all(t.is_contiguous() for t in tensors)
        arguments = Arguments(
            *(t.data_ptr() for t in tensors),
            len(weights.expert),
            tables.factor.shape[0],
            weights.config.horizon,
            buffers.rows,
            buffers.keys.shape[1],
            pace(weights.config.horizon),
        )
        self._counters.zero_()
        stream = torch.cuda.current_stream().cuda_stream
        self._kernel.launch((BLOCKS, 1, 1), (THREADS, 1, 1), (arguments,), stream)


def packed_layer(layer: GemmaLayer) -> Tensor:
    """A layer's FP8 weights as the blocks stream them: uint8, QKV, out, gate and up, down."""
    qkv, out, gate_up, down = (x.weight.view(torch.uint8) for x in _products(layer))
    return torch.cat(
        [
            _tiles(qkv[qkv_rows()], 32, 1),
            _tiles(out[:, out_columns()], 64, 8),
            _tiles(gate_up[gate_up_rows()], 64, 1),
            _tiles(down, 64, 8),
        ]
    )


def qkv_rows() -> Tensor:
    """Rows of QKV in the order of the blocks' columns: int64 [2560].

    A block has 16 pairs of a head, column i and i + 128 side by side, so that one thread rotates
    both; a thread has two pairs in a row.
    """
    head, block, column = torch.meshgrid(
        torch.arange(10), torch.arange(8), torch.arange(32), indexing='ij'
    )
    pair = 16 * block + 8 * (column // 16) + 2 * (column % 8 // 2) + column // 8 % 2
    return (head * 256 + pair + 128 * (column % 2)).flatten()


def gate_up_rows() -> Tensor:
    """Rows of gate and up in the order of the blocks' columns: int64 [8192].

    A block has 32 of each, a gate and its up side by side; a thread has four in a row.
    """
    block, column = torch.meshgrid(torch.arange(BLOCKS), torch.arange(64), indexing='ij')
    hidden = 32 * block + 16 * (column // 32) + 4 * (column % 8 // 2) + column // 8 % 4
    return (hidden + 4096 * (column % 2)).flatten()


def out_columns() -> Tensor:
    """Inputs of the attention's output product in the order that attention stores them: [2048].

    A thread of attention has columns 8 apart and stores four of them, two wide, as one unit.
    """
    head, part, quad, block, column = torch.meshgrid(
        torch.arange(8),
        torch.arange(8),
        torch.arange(4),
        torch.arange(4),
        torch.arange(2),
        indexing='ij',
    )
    return (head * 256 + 32 * part + 8 * block + 2 * quad + column).flatten()


def _tiles(weight: Tensor, rows: int, slices: int) -> Tensor:
    """[out, in] bytes -> for each ``rows`` outputs and slice of the inputs its chunks of 128 bytes
    a row, whose 16-byte units stand at their number xor the row's last three bits.
    """
    groups = weight.shape[0] // rows
    units = weight.reshape(groups, rows, slices, -1, 8, 16)
    number = torch.arange(8)[None, :] ^ (torch.arange(rows)[:, None] % 8)
    number = number.to(weight.device)[None, :, None, None, :, None].expand(units.shape)
    return units.gather(4, number).permute(0, 2, 3, 1, 4, 5).reshape(-1)


def _products(layer: GemmaLayer) -> tuple[Linear, Linear, Linear, Linear]:
    assert layer.out is not None
    assert layer.gate_up is not None
    assert layer.down is not None
    return layer.qkv, layer.out, layer.gate_up, layer.down


def _scale(product: Linear) -> Tensor:
    assert product.scale is not None
    return product.scale.float()
