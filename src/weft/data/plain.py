"""The few Arrow types that the rest of Weft sees, and columns brought to them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type are lists, of whatever."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The few Arrow types the rest of Weft sees: dictionaries, views, large, decimal and named types unfolded."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return _nested(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_decimal(kind):
        return pa.float64()
    return kind


def _nested(kind: pa.FixedShapeTensorType) -> pa.DataType:
    """Lists in lists, as many as the tensor has dimensions."""
    found = kind.value_type
    for size in reversed(kind.shape):
        found = pa.list_(found, size)
    return found


def plain(column: Any) -> Any:
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        if isinstance(column, pa.ChunkedArray):
            return pa.chunked_array([plain(c) for c in column.chunks], _nested(kind))
        storage = column.storage
        found = storage.values.slice(storage.offset * storage.type.list_size, len(storage) * storage.type.list_size)
        for size in reversed(kind.shape[1:]):
            found = pa.FixedSizeListArray.from_arrays(found, size)
        return pa.FixedSizeListArray.from_arrays(found, kind.shape[0], mask=storage.is_null())
    if isinstance(kind, pa.BaseExtensionType):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else None
        storage = column.storage if chunks is None else pa.chunked_array([c.storage for c in chunks], kind.storage_type)
        return plain(storage)
    if pa.types.is_dictionary(kind):
        return plain(pc.cast(column, kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(column))
    wanted = plain_type(kind)
    return column if kind == wanted else pc.cast(column, wanted, safe=False)
