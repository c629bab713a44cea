"""The files behind an address, of which format each is, and the columns that they have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from weft.data.formats import columns_of
from weft.data.lines import is_squad
from weft.data.parts import Part, is_local
from weft.data.pictures import is_picture_file
from weft.data.stores import asking, is_address
from weft.errors import DataError, UsageError, listing

_ENDINGS = {
    ".csv": "csv", ".tsv": "csv", ".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip


def _located(address: str) -> tuple[Any, bool, list[str]]:
    """Where the files of an address lie, whether it is a folder, and their paths."""
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        folder = filesystem.isdir(path)
        if folder:
            return filesystem, True, sorted(p for p in filesystem.find(path) if _hidden(p, path) is False)
        if any(sign in path for sign in "*?[") and not filesystem.exists(path):
            named = Path(path).name.startswith(".")
            found = (p for p in filesystem.glob(path) if named or not Path(p).name.startswith("."))
            return filesystem, False, sorted(p for p in found if filesystem.isfile(p))
        return filesystem, False, [path] if filesystem.exists(path) else []
    except (ImportError, ValueError, OSError) as error:
        if is_address(address) and not isinstance(error, ValueError):
            raise
        raise DataError(f"{address}: must be a file, glob, folder or fsspec address. Got: {error}.") from None


def find(address: str, format: str | None) -> list[Part]:
    with asking(address):
        filesystem, folder, paths = _located(address)
    if folder and not paths:
        raise DataError(f"{address}: the folder must hold files that end in {listing(sorted(_ENDINGS), 20)}. Got none.")
    if not paths:
        raise DataError(f"{address}: there is no such file. Check the path, or quote the glob.")
    parts = []
    pictures = tuple(p for p in paths if is_picture_file(p)) if format is None else ()
    if pictures and not any(_ending(p) in _ENDINGS for p in paths):
        if not is_local(filesystem):
            raise DataError(
                f"{address}: pictures are read from this machine. Got {filesystem.protocol}. Copy them here."
            )
        path = filesystem._strip_protocol(address)
        root = path if folder else os.path.commonpath([Path(p).parent for p in pictures])
        return [Part(root, sum(int(filesystem.size(p) or 0) for p in pictures), "pictures", filesystem, pictures)]
    for p in paths:
        kind = format or _ENDINGS.get(_ending(p))
        if kind is None:
            if folder or len(paths) > 1:
                continue
            raise UsageError(
                f"{p}: the ending must be one of {listing(sorted(_ENDINGS), 20)}. "
                f"Say data.format if the content is one of those."
            )
        try:
            size = int(filesystem.size(p) or 0)
        except OSError as error:
            raise DataError(f"{p}: must be readable. Got: {error}.") from None
        if size == 0:
            raise DataError(f"{p}: the file is empty (0 bytes). Remove it or name another one.")
        part = Part(p, size, kind, filesystem)
        parts.append(replace(part, format="squad") if kind == "jsonl" and format is None and is_squad(part) else part)
    if not parts:
        raise DataError(
            f"{address}: must hold files that end in {listing(sorted(_ENDINGS), 20)}. Got none among {len(paths)} "
            f"({listing([Path(p).name for p in paths], 3)}). Say data.format if the content is one of those."
        )
    return parts


def _ending(path: str) -> str:
    return Path(path.removesuffix(".gz")).suffix.lower()


def _hidden(path: str, root: str) -> bool:
    return any(piece.startswith((".", "_")) for piece in path[len(root) :].split("/"))


def common_columns(parts: Sequence[Part]) -> dict[str, pa.DataType]:
    """The columns of a table in the order of its first file; JSON Lines may leave out keys, others not."""
    columns: dict[str, pa.DataType] = {}
    for part in parts:
        found = columns_of(part)
        odd = set(found) ^ set(columns)
        if columns and odd and {part.format, parts[0].format} != {"jsonl"}:
            raise DataError(
                f"{part.path}: every file of a table must have the same columns as {parts[0].path}. "
                f"Got a difference in {listing(sorted(odd))}. Read them as separate tables."
            )
        for name, kind in found.items():
            common = _common_type(columns.get(name, kind), kind)
            if common is None:
                raise DataError(
                    f"{part.path}: column '{name}' must be of one type in every file. Got {kind}, and "
                    f"{columns[name]} in {parts[0].path}. Write them in one type, or read them as separate tables."
                )
            columns[name] = common
    return columns


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    number = (pa.types.is_integer, pa.types.is_floating)
    if all(any(test(kind) for test in number) for kind in (one, other)):
        whole = all(pa.types.is_integer(kind) for kind in (one, other))
        return pa.int64() if whole and pa.uint64() not in (one, other) else pa.float64()
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(other) and one.tz == other.tz:
        return pa.timestamp("us", one.tz)
    return None
