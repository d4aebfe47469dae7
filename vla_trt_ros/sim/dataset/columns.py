"""info.json's features as Arrow types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa


def arrow_schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """The columns of a data file, from the features of info.json."""
    return pa.schema([(name, _arrow_type(feature)) for name, feature in features.items()])


def _arrow_type(feature: Mapping[str, Any]) -> Any:
    if feature['dtype'] == 'image':
        return pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    made = {'int64': pa.int64(), 'float32': pa.float32()}[feature['dtype']]
    shape = list(feature['shape'])
    if shape == [1]:
        return made
    if len(shape) == 1:
        return pa.list_(made, shape[0])
    for _ in shape:
        made = pa.list_(made)
    return made
