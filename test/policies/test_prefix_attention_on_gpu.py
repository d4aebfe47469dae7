"""Attention of the prefix by kernels/prefix_attention.cu against plain PyTorch, on a GPU."""

import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
    pytest.skip('needs a GPU of compute capability 9.0', allow_module_level=True)
pytest.importorskip('cuda.core', reason="pip install '.[tensorrt]'")

from vla_trt_ros.policies.pi05.cuda import prefix_attention  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.fold import FP8  # noqa: E402

pytestmark = pytest.mark.gpu

# Tokens, and how many of them count: clusters of 2, 3 and 4 blocks, tiles that are cut, blocks of
# a cluster that have no keys.
SHAPES = [(976, 968), (976, 931), (560, 560), (560, 545), (304, 300), (816, 770), (64, 3)]


def drawn(tokens, valid):
    torch.manual_seed(0)
    q = torch.randn(tokens * 8, 256, device='cuda').bfloat16() * 2
    keys, values = (torch.randn(tokens + 64, 256, device='cuda').bfloat16() for _ in range(2))
    keys[valid:] = values[valid:] = float('nan')  # what stands behind them may be anything
    count = torch.tensor([valid], dtype=torch.int32, device='cuda')
    return q, keys, values, count


def run(drawn, dtype):
    q = drawn[0]
    out = torch.full((q.shape[0] // 8, 2048), 77.0, device='cuda').to(dtype)
    prefix_attention.attend(*drawn, out, 0.5)
    return out


@pytest.mark.parametrize(('dtype', 'limit'), [(torch.bfloat16, 4e-3), (FP8, 3e-2)])
@pytest.mark.parametrize(('tokens', 'valid'), SHAPES)
def test_it_equals_plain_attention(tokens, valid, dtype, limit):
    inputs = drawn(tokens, valid)
    q, keys, values, _ = inputs
    weights = (q.float() @ keys[:valid].float().t() / 16).softmax(1)
    expected = 0.5 * (weights @ values[:valid].float())
    out = run(inputs, dtype)
    error = torch.linalg.norm(out.float().view(-1, 256) - expected)
    assert error / torch.linalg.norm(expected) < limit
    assert torch.equal(run(inputs, dtype).view(torch.uint8), out.view(torch.uint8))


def test_what_it_does_not_serve():
    assert not prefix_attention.serves(torch.zeros(8, 128, dtype=torch.bfloat16, device='cuda'))
    assert not prefix_attention.serves(torch.zeros(8, 256, device='cuda'))
