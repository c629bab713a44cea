"""Cells to pictures of 8 bits, grey or RGB: from paths, bytes or arrays, shrunk before they are kept.

The header is read first: a file of too many bytes or pixels, or of a format that is not on the list, is never decoded.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from weft.data.columns import says_missing
from weft.data.pictures import KEPT, PicturePlan, kind_of, pixel_type
from weft.errors import DataError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
MOST_BYTES = 1 << 26
MOST_PIXELS = 50_000_000
TYPE = pa.struct(
    [("height", pa.uint16()), ("width", pa.uint16()), ("channels", pa.uint8()), ("pixels", pa.large_binary())]
)
"""A clean picture: rows of pixels, each of one grey value or of red, green and blue, 0 to 255."""
Bad = dict[int, tuple[str, str]]
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")


class _Unfit(ValueError):
    """Why a cell is no picture that can be read."""


def read_pictures(array: pa.Array, plan: PicturePlan, folder: Path | None, noticed: Counter[str]) -> tuple[Any, Bad]:
    """Clean pictures of ``TYPE``, null where there is none, and the cells that are bad: reason and what came.

    ``folder``: where relative paths begin; None where the table is not on this machine. ``noticed`` counts what was
    read otherwise than it came.
    """
    cells: list[dict[str, Any] | None] = []
    bad: Bad = {}
    way = kind_of(array.type)
    if way is None:
        raise DataError(f"a picture must be a path, bytes or an array. Got {array.type}. Set the column off.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library warns of is checked here
        for place, cell in enumerate(array if way == "arrays" else array.to_pylist()):
            try:
                pixels = _array(cell, plan) if way == "arrays" else _file(cell, plan, folder, noticed)
            except _Unfit as error:
                pixels = None
                bad[place] = (str(error), _shown(cell, way))
            cells.append(None if pixels is None else _packed(pixels))
    return pa.array(cells, TYPE), bad


def unpacked(pictures: pa.Array) -> list[np.ndarray | None]:
    """Clean pictures as arrays uint8 [H, W, C]."""
    return [
        None if c is None else np.frombuffer(c["pixels"], np.uint8).reshape(c["height"], c["width"], c["channels"])
        for c in pictures.to_pylist()
    ]


def resized(pixels: np.ndarray, side: int, channels: int) -> np.ndarray:
    """uint8 [H, W, C] -> [side, side, channels], by bilinear interpolation with antialiasing; proportions change."""
    if channels == 1 and pixels.shape[2] == 3:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    if pixels.shape[:2] != (side, side):
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)).reshape(side, side, -1)
    return np.broadcast_to(pixels, (side, side, channels))


def _packed(pixels: np.ndarray) -> dict[str, Any]:
    height, width, channels = pixels.shape
    return {"height": height, "width": width, "channels": channels, "pixels": pixels.tobytes()}


def _shown(cell: Any, way: str) -> str:
    if way == "arrays":
        return f"an array of {cell.type}"
    if isinstance(cell, dict):
        cell = cell["path"] if cell["path"] else cell["bytes"]
    return cell if isinstance(cell, str) else f"{len(cell):,} bytes that begin with {cell[:16]!r}"


# ---- arrays


def _array(cell: pa.Scalar, plan: PicturePlan) -> np.ndarray | None:
    """Pixels of nested lists [H][W] or [H][W][C]."""
    kind = pixel_type(cell.type)
    if not cell.is_valid:
        return None
    shape, values = [], cell.values
    for depth in range(3):
        shape.append(len(values))
        if not pa.types.is_nested(values.type):
            break
        lengths = set(values.value_lengths().to_pylist()) if not pa.types.is_fixed_size_list(values.type) else set()
        if values.null_count or len(lengths) > 1:
            raise _Unfit(f"must be a whole array, has rows of {sorted(map(str, lengths)) or 'no'} numbers")
        values = values.flatten()
        shape[depth + 1 :] = []
    sizes = [shape[0], *(b // max(1, a) for a, b in itertools.pairwise(shape))]
    if values.null_count or 0 in sizes or (len(sizes) == 3 and sizes[2] not in (1, 3, 4)):
        raise _Unfit(f"must be an array H x W, or H x W x 1, 3 or 4, without gaps; is {' x '.join(map(str, sizes))}")
    if sizes[0] * sizes[1] > MOST_PIXELS:
        raise _Unfit(f"has {sizes[0]:,} x {sizes[1]:,} pixels, more than {MOST_PIXELS:,}")
    low, high = plan.range or (0, 255)
    assert kind is not None
    numbers = values.to_numpy(zero_copy_only=False)
    if kind != pa.uint8() or plan.range is not None:
        if not (np.isfinite(numbers).all() and low <= numbers.min() and numbers.max() <= high):
            raise _Unfit(f"must hold numbers from {low:g} to {high:g}, has {numbers.min():g} to {numbers.max():g}")
        numbers = np.rint((numbers - low) * (255 / (high - low))).astype(np.uint8)
    pixels = numbers.reshape(*sizes[:2], -1)
    return _kept(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), plan)


# ---- files


def _file(cell: Any, plan: PicturePlan, folder: Path | None, noticed: Counter[str]) -> np.ndarray | None:
    """Pixels of a path, of bytes, or of a pair of them."""
    if isinstance(cell, dict):
        cell = cell["bytes"] if cell["bytes"] is not None else cell["path"]
    if cell is None or (isinstance(cell, str) and says_missing(cell)):
        return None
    content = _read(cell.strip(), folder) if isinstance(cell, str) else cell
    if len(content) > MOST_BYTES:
        raise _Unfit(f"has {len(content):,} bytes, more than {MOST_BYTES:,}")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _Unfit(f"has more than {MOST_PIXELS:,} pixels") from None
    except Exception:  # a damaged header makes the library raise nearly anything
        what = "is an SVG" if b"<svg" in content[:1000] else "is empty" if not content else "is another file or damaged"
        raise _Unfit(f"must be a picture in PNG, JPEG, GIF, BMP, WebP or TIFF, {what}") from None
    if image.width * image.height > MOST_PIXELS:
        raise _Unfit(f"has {image.width:,} x {image.height:,} pixels, more than {MOST_PIXELS:,}")
    try:
        if getattr(image, "is_animated", False):
            noticed["animated or of several pages: its first picture is read"] += 1
        if plan.side is None:
            image.draft(None, (4 * KEPT, 4 * KEPT))  # a large JPEG is decoded at a part of its size
        image.load()
        return _kept(ImageOps.exif_transpose(image), plan)
    except _Unfit:
        raise
    except Exception as error:
        raise _Unfit(f"must be a whole picture, is damaged or cut short ({type(error).__name__})") from None


def _read(path: str, folder: Path | None) -> bytes:
    """The bytes of a file that is no longer than it may be."""
    if _ADDRESS.match(path):
        raise _Unfit("must be a path on this machine, is an address; nothing is fetched")
    file = Path(path)
    try:
        if not file.is_absolute():
            if folder is None:
                raise _Unfit("must be an absolute path, as the table is not on this machine")
            root = folder.resolve()
            file = (root / file).resolve()
            if not file.is_relative_to(root):
                raise _Unfit("must be a path inside the table's folder, leads out of it")
        if not file.exists():
            raise _Unfit("must be a file, there is none")
        if not file.is_file():
            raise _Unfit("must be a file, is none")
        if file.stat().st_size > MOST_BYTES:
            raise _Unfit(f"has {file.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, _Unfit):
            raise
        said = getattr(error, "strerror", None) or str(error)
        raise _Unfit(f"must be a readable file: {said}") from None


def _kept(image: Image.Image, plan: PicturePlan) -> np.ndarray:
    """Pixels [H, W, C] of 8 bits, grey or RGB, at the size that is kept; what is transparent lies on white."""
    image = _plain(image)
    if plan.side is not None:
        image = image.resize((plan.side, plan.side), Image.Resampling.BILINEAR)
    elif max(image.size) > KEPT:
        share = KEPT / max(image.size)
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, 0]  # grey, stored as colours
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _plain(image: Image.Image) -> Image.Image:
    """In mode L or RGB."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65_535:
            raise _Unfit(f"must have 8 or 16 bits a pixel, has values from {values.min():g} to {values.max():g}")
        return Image.fromarray((values.astype(np.uint32) * 255 // 65_535).astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
