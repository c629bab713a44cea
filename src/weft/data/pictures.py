"""Where pictures are in a table: paths, bytes (alone or as ``{bytes, path}``) and arrays; and a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from weft.data.plain import is_list

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
FOLDER_COLUMNS = {"image": pa.string(), "label": pa.string()}
"""What a folder of pictures is as a table: each file's path in it, and the sub-folder that it lies in."""
KEPT = 64
"""Pixels of the longer side that are kept where no size is said."""
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
_MOSTLY = 0.9  # of the cells: a few may be broken


@dataclass(frozen=True)
class PicturePlan:
    """How the pictures of a column are read.

    ``side``: all are brought to side x side pixels; None: those longer than ``KEPT`` are shrunk in proportion.
    ``range``: what is black and what is white in arrays of numbers (default: 0 and 255).
    """

    side: int | None = None
    range: tuple[float, float] | None = None


def is_picture_file(path: str) -> bool:
    return path.lower().endswith(ENDINGS)


def kind_of(kind: pa.DataType) -> str | None:
    """How values of an Arrow type hold pictures: ``paths``, ``bytes``, ``both`` or ``arrays``; None: in no way."""
    if pa.types.is_string(kind):
        return "paths"
    if pa.types.is_binary(kind):
        return "bytes"
    if pa.types.is_struct(kind) and {f.name for f in kind} == {"bytes", "path"}:
        return "both"
    return "arrays" if pixel_type(kind) is not None else None


def pixel_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of the numbers of arrays H x W or H x W x C; None where it is another type."""
    depth = 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return kind if depth in (2, 3) and (pa.types.is_integer(kind) or pa.types.is_floating(kind)) else None


def pictures_reason(present: Any) -> str | None:
    """Why cells are taken for pictures; None where they are something else."""
    way = kind_of(present.type)
    if way == "arrays":
        return f"holds arrays of {pixel_type(present.type)} in two or three dimensions"
    if way == "both":
        return "holds bytes and paths of pictures"
    cells = present.slice(0, 200).to_pylist()
    if way == "bytes" and sum(c.startswith(_SIGNATURES) for c in cells) >= _MOSTLY * len(cells):
        return "holds the bytes of pictures"
    if way == "paths":
        named = [c.strip() for c in cells if is_picture_file(c.strip()) and "://" not in c]
        if len(named) >= _MOSTLY * len(cells):
            endings = [PurePosixPath(c).suffix.lower() for c in named]
            return f"names files of pictures ({max(sorted(set(endings)), key=endings.count)})"
    return None


def needs_range(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are arrays whose black and white cannot be known."""
    return (found := pixel_type(kind)) is not None and pa.types.is_floating(found)


def folder_rows(root: str, files: Sequence[str], start: int) -> Iterator[tuple[int, str, str | None]]:
    """(number, path in the folder, first sub-folder or None) of each picture."""
    for number, file in enumerate(files, start):
        path = PurePosixPath(file).relative_to(root)
        yield number, str(path), path.parts[0] if len(path.parts) > 1 else None
