"""What can be checked of the shipped bundle without its checkpoint: each float32 graph is the one
that the exporter makes of a network of these sizes, but for the weights; int8 is made of it.
"""

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")
pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[export]'")

from onnx import numpy_helper  # noqa: E402

from vla_trt_ros.bundle import open_bundle  # noqa: E402
from vla_trt_ros.config import find_file  # noqa: E402
from vla_trt_ros.export.graphs import graphs_of  # noqa: E402
from vla_trt_ros.export.quantize.bundle import quantize_bundle  # noqa: E402
from vla_trt_ros.export.quantize.draft import drop_unused, open_draft  # noqa: E402
from vla_trt_ros.policies.pi05.engines import read_config  # noqa: E402

TABLE = 'modulation_table'


@pytest.fixture(scope='module')
def bundle():
    return open_bundle(find_file('bundles', 'nano', ''))


def shapes(model):
    return {t.name: (t.data_type, tuple(t.dims)) for t in model.graph.initializer}


@pytest.mark.slow
def test_the_graphs_are_those_that_the_exporter_makes(bundle):
    torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")
    from vla_trt_ros.export.pi05.trace import trace_graphs
    from vla_trt_ros.export.weightless import is_pending
    from vla_trt_ros.policies.pi05.spec import modulation_shape

    config = read_config(bundle)
    shipped = {
        (stage, *key): path
        for stage in ('vision', 'prefix', 'denoise')
        for key, path in graphs_of(bundle, stage, 'fp32').items()
    }
    made = trace_graphs(
        config,
        torch.float32,
        lambda times: np.zeros((len(times), *modulation_shape(config)), np.float32),
    )
    for graph in made:
        draft = open_draft(shipped.pop((graph.stage, graph.bucket, graph.num_steps)))
        ours, theirs = graph.traced.model, draft.model
        for model in (ours, theirs):
            drop_unused(model)
        assert shapes(ours) == shapes(theirs), graph.name
        assert [n.SerializeToString() for n in ours.graph.node] == [
            n.SerializeToString() for n in theirs.graph.node
        ], graph.name
        for tensor in ours.graph.initializer:
            if not is_pending(tensor) and tensor.name != TABLE:
                constant = numpy_helper.to_array(tensor)
                np.testing.assert_array_equal(draft.original(tensor.name), constant)
    assert shipped == {}


def test_weights_are_float16_where_the_bundle_says_so(bundle):
    if 'weights_rounded_to' not in bundle.manifest.notes:
        pytest.skip('this bundle keeps float32 weights')
    for stage in ('vision', 'prefix', 'denoise'):
        draft = open_draft(next(iter(graphs_of(bundle, stage, 'fp32').values())))
        matrices = [t.name for t in draft.model.graph.initializer if len(t.dims) >= 2]
        for name in set(matrices) - {TABLE}:
            weight = draft.original(name)
            np.testing.assert_array_equal(weight, weight.astype(np.float16), err_msg=name)


def test_int8_is_made_of_the_float_graphs(bundle, tmp_path):
    shipped = [e for e in bundle.manifest.engines if e.precision == 'int8']
    if not shipped:
        pytest.skip('this bundle has no int8')
    half = 'weights_rounded_to' in bundle.manifest.notes
    new = quantize_bundle(bundle, ['int8'], tmp_path, gpu=False, half=half)
    assert {e.file for e in new.engines} == {e.file for e in shipped}
    for file in sorted(tmp_path.iterdir()):
        assert file.read_bytes() == bundle.file(file.name).read_bytes(), file.name
