"""Counts from the builder's log, on lines as TensorRT-RTX 1.7.1 writes them."""

import pytest

pytest.importorskip('onnx', reason="workshop only: pip install '.[trt-build]'")

from vla_trt_ros.export.trt.layer_log import LayerLog, LogReader

TENSOR = '{ Name: %s, Dimensions: [1,128], Strides: [128,1], Datatype: %s, Format: (Linear) x }'


def line(name, kind, inputs=(), constants=()):
    given = ', '.join(TENSOR % ('a', t) for t in inputs)
    weights = ', '.join(TENSOR % ('w', t) for t in constants)
    return (
        f'Name: {name}, LayerType: {kind}, Inputs: [ {given}], Constants: [ {weights}], '
        f'Outputs: [ {TENSOR % ("o", "BFloat16")}]'
    )


LAYERS = [
    line('__myl_Cast_myl0_0', 'kgen', ['Float']),
    line('node_MatMul_1_gemm_mha_v2_myl0_1', 'kgen', ['BFloat16']),
    line('scaled_dot_product_attention_1_myl0_2', 'gemm', ['FP8'], ['BFloat16']),
    line('node_linear_3', 'gemm', ['FP8'], ['FP8', 'Float']),
    line('node_linear_4', 'gemm', ['FP8'], ['FP8', 'FP8']),
    line('node_linear_5', 'runtime_fusion', ['BFloat16'], ['Int4', 'BFloat16']),
    line('node_linear_6', 'gemm', ['FP4E2M1'], ['FP4E2M1', 'FP8']),
    line('node_linear_7', 'gemm', ['Int8'], ['Int8']),
    line('__mye1', 'signal'),
    line('__mye2', 'wait'),
    line('__mye3', 'wait'),
]


def heard(*messages):
    reader = LogReader()
    for message in messages:
        reader(message)
    return reader.log


def test_layers_attentions_and_datatypes():
    log = heard('Layers:\n' + '\n'.join(LAYERS) + '\n\nI/O Tensors:\n Name: x, DataType: Float')
    assert log.layers == len(LAYERS) - 3
    # 'attention' in the name of a plain GEMM does not count, nor does an FP8 activation.
    assert log.fused_attentions == 1
    assert log.low_precision == {'fp8': 3, 'int4': 1, 'fp4e2m1': 1, 'int8': 1}
    assert log.kinds == {'kgen': 2, 'gemm': 5, 'runtime_fusion': 1, 'signal': 1, 'wait': 2}


def test_memory_of_parts_is_added():
    log = heard(
        'Total Activation Memory: 1000 bytes',
        'Total Weights Memory: 30 bytes',
        'Total Weights Memory: 12 bytes',
        'Max Scratch Memory: 5 bytes',
    )
    assert (log.weights_bytes, log.activation_bytes) == (42, 1000)


@pytest.mark.parametrize('messages', [(), ('Layers: none to speak of',), ('Name: x',)])
def test_a_log_that_does_not_tell(messages):
    assert heard(*messages) == LayerLog()
