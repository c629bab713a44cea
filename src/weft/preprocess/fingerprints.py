"""Cells as numbers: fingerprints of 128 bits, equal where what they hold is, and the shingles of texts.

No Python object a row: the bytes of a column are read eight at a time, wherever they begin, and mixed by
:func:`weft.data.split.mixed`. A shingle is five bytes in a row, of a text in small letters without spaces and ASCII
punctuation: five letters of English, about two characters of Chinese.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.split import mixed

SHINGLE = 5
MOST_BYTES = 1 << 20
"""Of a text: what comes after is not compared."""
_STEP = np.uint64(0x9E3779B97F4A7C15)
_SEEDS = np.array([0x243F6A8885A308D3, 0x13198A2E03707344], np.uint64)
_MISSING = np.array([0xA4093822299F31D0, 0x082EFA98EC4E6C89], np.uint64)
_BYTES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
_SPOKEN = np.array([b >= 128 or chr(b).isalnum() for b in range(256)])


def row_fingerprints(columns: Mapping[str, pa.Array], rows: int) -> np.ndarray:
    """A fingerprint of each row over some columns, in the order of their names [N, 2]."""
    found = np.tile(_SEEDS, (rows, 1))
    for name in sorted(columns):
        found = mixed(found * _STEP + fingerprints(columns[name]))
    return found


def fingerprints(array: pa.Array) -> np.ndarray:
    """Of each cell of any type 128 bits as two numbers [N, 2]; two cells that differ have one with a chance of 2^-128
    or so, unless somebody seeks them."""
    kind = array.type
    if pa.types.is_null(kind):
        return np.tile(_MISSING, (len(array), 1))
    if any(is_bytes(kind) for is_bytes in _BYTES):
        found = _of_bytes(*_bytes(array))
    elif pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        found = _folded(fingerprints(array.flatten()), lengths)
    elif pa.types.is_struct(kind):
        fields = {kind.field(i).name: column for i, column in enumerate(array.flatten())}
        found = row_fingerprints(fields, len(array))
    else:
        values = array.fill_null(False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False)
        bits = (values + 0.0 if values.dtype.kind == "f" else values.astype(np.int64)).view(np.uint64)  # -0.0 is 0.0
        found = mixed(bits[:, None] + _SEEDS)
    if array.null_count:
        found[array.is_null().to_numpy(zero_copy_only=False)] = _MISSING
    return found


def shingles(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The shingles of each text as numbers below 2^40, repeated as they are, and how many each text has [N].

    A missing text has none, one that is shorter than a shingle has one.
    """
    starts, lengths, data = _bytes(pc.fill_null(pc.utf8_lower(texts), ""))
    if len(lengths) and lengths.max() > MOST_BYTES:
        lengths = np.minimum(lengths, MOST_BYTES)
        data = np.concatenate([data[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)])
    else:
        data = data[starts[0] : starts[-1] + lengths[-1]] if len(lengths) else data
    spoken = _SPOKEN[data]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(spoken)])[np.cumsum(lengths)]
    lengths = np.diff(ends, prepend=0)
    counts = np.where(lengths > 0, np.maximum(lengths - SHINGLE + 1, 1), 0)
    places = within(counts) + np.repeat(ends - lengths, counts)
    found = _loaded(data[spoken], places) & np.uint64((1 << 8 * SHINGLE) - 1)
    short = (lengths > 0) & (lengths < SHINGLE)
    if short.any():
        alone = (np.cumsum(counts) - counts)[short]
        found[alone] &= (np.uint64(1) << (8 * lengths[short]).astype(np.uint64)) - np.uint64(1)
    return found, counts


def _bytes(array: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each cell's bytes start, how many they are (none where it is missing), and all bytes."""
    wide = pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type)
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)[array.offset : array.offset + len(array) + 1]
    starts, lengths = ends[:-1].astype(np.int64), np.diff(ends).astype(np.int64)
    if array.null_count:
        lengths[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return starts, lengths, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def _of_bytes(starts: np.ndarray, lengths: np.ndarray, data: np.ndarray) -> np.ndarray:
    counts = -(-lengths // 8)
    words = _loaded(data, np.repeat(starts, counts) + 8 * within(counts))
    last = np.cumsum(counts)[counts > 0] - 1
    over = (8 * (-lengths[counts > 0] % 8)).astype(np.uint64)
    words[last] = words[last] << over >> over  # what follows the cell in memory
    return mixed(_folded(words[:, None], counts) + lengths.astype(np.uint64)[:, None] * _STEP)


def _folded(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """One number of the values [M, 1 or 2] of each row, in their order [N, 2]."""
    terms = mixed(values + _SEEDS + (within(lengths).astype(np.uint64) * _STEP)[:, None])
    found = np.tile(_SEEDS, (len(lengths), 1))
    some = lengths > 0
    if some.any():
        found[some] += np.add.reduceat(terms, (np.cumsum(lengths) - lengths)[some], axis=0)
    return found


def within(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... for each row anew."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _loaded(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Eight bytes from each place on, as one number; zeros after the end."""
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    return np.ndarray(len(data) + 1, np.uint64, padded, strides=(1,))[places]
