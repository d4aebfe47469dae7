"""A graph on its way to another precision, whose weights stay in their file until written.

Passes edit nodes and say how each initialiser is made; `Draft.write` makes them one at a time. So
the memory in use is that of the graph and of the largest tensor, whatever the size of the stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

from vla_trt_ros.backends.base import Array
from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.quantize.numerics import check_finite
from vla_trt_ros.export.quantize.store import WeightStore

ELEMENT: dict[str, int] = {
    'float32': TensorProto.FLOAT,
    'float16': TensorProto.FLOAT16,
    'bfloat16': TensorProto.BFLOAT16,
    'float8_e4m3fn': TensorProto.FLOAT8E4M3FN,
    'float4_e2m1fn': TensorProto.FLOAT4E2M1,
    'int8': TensorProto.INT8,
    'int4': TensorProto.INT4,
}
FLOATS = frozenset(ELEMENT[name] for name in ('float32', 'float16', 'bfloat16'))


@dataclass(frozen=True, slots=True)
class Content:
    """How the values of an initialiser are made. Equal tags make equal bytes."""

    tag: str
    make: Callable[[], Array]
    original: Callable[[], Array]
    """As the source has it, before any cast."""


@dataclass(slots=True)
class Draft:
    """``model`` has headers alone of the tensors that ``contents`` names."""

    model: onnx.ModelProto
    contents: dict[str, Content] = field(default_factory=dict)

    def original(self, name: str) -> Array:
        """Values of an initialiser as the source has them."""
        if name in self.contents:
            return self.contents[name].original()
        tensor = next(t for t in self.model.graph.initializer if t.name == name)
        return numpy_helper.to_array(tensor)

    def add(self, name: str, array: Array) -> str:
        """A small initialiser, kept in the graph. Its name."""
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def announce(self, name: str, dtype: str, shape: tuple[int, ...], content: Content) -> str:
        """An initialiser that is made when it is written. Its name."""
        self.model.graph.initializer.append(
            TensorProto(name=name, data_type=ELEMENT[dtype], dims=shape)
        )
        self.contents[name] = content
        return name

    def write(self, path: Path, store: WeightStore) -> None:
        """Make every tensor, the large ones into ``store``, and write the graph to ``path``."""
        drop_unused(self.model)
        for tensor in self.model.graph.initializer:
            content = self.contents.get(tensor.name)
            if content is None:
                continue
            made = store.find(content.tag)
            if made is None:
                array = content.make()
                if tensor.data_type in FLOATS:
                    check_finite(tensor.name, array)
                made = store.put(content.tag, array)
            name, announced = tensor.name, tensor.data_type
            tensor.CopyFrom(made)
            tensor.name = name
            assert tensor.data_type == announced, f'{name} was announced as another type'
        store.save(self.model, path)


def open_draft(path: Path) -> Draft:
    """The graph at ``path``, its weights untouched on disk. BundleError if it is not ONNX."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own exceptions differ by implementation
        raise BundleError(f'{path} cannot be read as ONNX ({error}); export it again.') from error
    return draft_of(model, path.parent)


def draft_of(model: onnx.ModelProto, folder: Path) -> Draft:
    """``model``, whose external tensors lie in ``folder``, as a draft. ``model`` is altered.

    Float tensors become contents; integers and scalars stay, for shape inference reads them.
    """
    draft = Draft(model)
    for tensor in model.graph.initializer:
        if tensor.data_type not in FLOATS or not tensor.dims:
            continue
        whole = TensorProto()
        whole.CopyFrom(tensor)
        read = _reader(whole, folder)
        draft.contents[tensor.name] = Content(_identity(whole), read, read)
        for part in ('raw_data', 'float_data', 'int32_data', 'external_data', 'data_location'):
            tensor.ClearField(part)
    _widen_stored_halves(draft)
    return draft


def stored_halves(model: onnx.ModelProto) -> dict[str, str]:
    """Float16 initialisers that are cast to float32 before anything reads them, and the names of
    the casts' outputs: how halves.py stores float32 weights.
    """
    halves = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    found: dict[str, str] = {}
    for node in model.graph.node:
        read = halves.intersection(node.input)
        if read and node.op_type == 'Cast' and node.attribute[0].i == TensorProto.FLOAT:
            found[node.input[0]] = node.output[0]
        else:
            halves -= read
    return {half: wide for half, wide in found.items() if half in halves}


def _widen_stored_halves(draft: Draft) -> None:
    """The graph as it was before halves.py stored it."""
    graph = draft.model.graph
    wide = stored_halves(draft.model)
    kept = [node for node in graph.node if not set(node.input) <= set(wide) or not node.input]
    del graph.node[:]
    graph.node.extend(kept)
    for tensor in [t for t in graph.initializer if t.name in wide]:
        half = draft.contents.pop(tensor.name)
        graph.initializer.remove(tensor)

        def read(make: Callable[[], Array] = half.make) -> Array:
            return np.asarray(make(), np.float32)

        content = Content(f'{half.tag}>float32', read, read)
        draft.announce(wide[tensor.name], 'float32', tuple(tensor.dims), content)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and initialisers that no output needs."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    tensors = [t for t in graph.initializer if t.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _reader(whole: TensorProto, folder: Path) -> Callable[[], Array]:
    """External values are mapped, not read: pages come as they are used, and can go again."""
    if not whole.external_data:
        return lambda: numpy_helper.to_array(whole)
    place = external_data_helper.ExternalDataInfo(whole)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(whole.data_type)
    if whole.data_type not in FLOATS or Path(place.location).name != place.location:
        raise BundleError(
            f'weight {whole.name!r} is kept in {place.location!r}, which is not a file beside the '
            'graph; export the bundle again.'
        )

    def read() -> Array:
        try:
            return np.memmap(
                folder / place.location, dtype, 'r', place.offset or 0, tuple(whole.dims)
            )
        except (OSError, ValueError) as error:
            raise BundleError(
                f'weight {whole.name!r} cannot be read from {place.location} ({error}); export '
                'the bundle again.'
            ) from error

    return read


def _identity(whole: TensorProto) -> str:
    if whole.external_data:
        return ':'.join(entry.value for entry in whole.external_data)
    nameless = TensorProto()
    nameless.CopyFrom(whole)
    nameless.name = ''
    return hashlib.sha256(nameless.SerializeToString(deterministic=True)).hexdigest()
