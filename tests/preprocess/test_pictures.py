"""Cells of pictures: what is read, how, and what sets a row aside."""

import io
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from weft.data.pictures import KEPT, PicturePlan
from weft.preprocess.pictures import read_pictures, unpacked

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (12, 10, 3), dtype=np.uint8)
GREY = COLOURS[:, :, 0]


def saved(image, kind="PNG", **more):
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **more)
    return stream.getvalue()


def read(cells, kind=None, plan=PicturePlan(), folder=None):
    """Pictures, reasons, and what was noticed."""
    noticed = Counter()
    array = cells if isinstance(cells, pa.Array) else pa.array(cells, kind)
    found, bad = read_pictures(array, plan, folder, noticed)
    return unpacked(found), {place: reason for place, (reason, _) in bad.items()}, noticed


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_bytes_give_their_pixels(kind):
    grey, colour = np.full((5, 4), 9, np.uint8), COLOURS
    more = {"lossless": True} if kind == "WEBP" else {}
    (found, other, none), bad, _ = read([saved(grey, kind, **more), saved(colour, kind, **more), None], pa.binary())
    assert not bad and none is None
    np.testing.assert_array_equal(found, grey[:, :, None])
    if kind == "GIF":
        assert other.shape == colour.shape  # 256 colours only
    else:
        np.testing.assert_array_equal(other, colour)


def test_a_jpeg_gives_nearly_its_pixels():
    smooth = np.asarray(Image.fromarray(COLOURS).resize((40, 40), Image.BICUBIC))
    (found,), bad, _ = read([saved(smooth, "JPEG", quality=100, subsampling=0)], pa.binary())
    assert not bad and np.abs(found.astype(int) - smooth).mean() < 2


def test_grey_stored_as_colours_is_grey():
    (found,), _, _ = read([saved(np.stack([GREY] * 3, axis=2))], pa.binary())
    np.testing.assert_array_equal(found, GREY[:, :, None])


def test_every_mode_comes_to_grey_or_rgb():
    sixteen = Image.fromarray(GREY.astype(np.uint16) * 257)
    clear = Image.fromarray(np.dstack([COLOURS, np.where(GREY > 99, 255, 0).astype(np.uint8)]))
    cells = [
        saved(Image.fromarray(GREY > 99)), saved(sixteen), saved(clear), saved(Image.fromarray(COLOURS).quantize(4)),
        saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), saved(Image.fromarray(GREY).convert("LA")),
    ]  # fmt: skip
    (bits, deep, alpha, palette, cmyk, both), bad, _ = read(cells, pa.binary())
    assert not bad
    np.testing.assert_array_equal(bits[:, :, 0], np.where(GREY > 99, 255, 0))
    np.testing.assert_array_equal(deep[:, :, 0], GREY)
    np.testing.assert_array_equal(alpha, np.where((GREY > 99)[:, :, None], COLOURS, 255))
    assert palette.shape == COLOURS.shape and len(np.unique(palette.reshape(-1, 3), axis=0)) == 4
    assert cmyk[4, 4, 0] > 200 and cmyk[4, 4, 1:].max() < 60  # no cyan, all magenta and yellow: red
    np.testing.assert_array_equal(both[:, :, 0], GREY)


def test_a_photograph_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    (found,), _, _ = read([saved(COLOURS, exif=exif)], pa.binary())
    np.testing.assert_array_equal(found, np.rot90(COLOURS, -1))


def test_of_an_animation_the_first_picture_is_read_and_said():
    frames = [Image.new("L", (6, 6), shade) for shade in (40, 200, 90)]
    cell = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    (found,), bad, noticed = read([cell], pa.binary())
    assert not bad and found.max() == 40
    assert noticed == {"animated or of several pages: its first picture is read": 1}


def png_of(width, height, packed=b""):
    """A PNG that says these sizes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_a_small_png_that_unfolds_to_a_gigabyte_is_never_decoded(monkeypatch):
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(3 * 1_000_000)) for _ in range(20)) + packer.flush()
    cells = [png_of(side, side, packed) for side in (18_000, 100_000, 10_000, 8_000)]
    assert all(len(c) < 100_000 for c in cells)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    found, bad, _ = read(cells, pa.binary())
    assert found == [None] * 4 and all(
        "pixels, more than 50,000,000" in r or "has more than" in r for r in bad.values()
    )
    assert len(bad) == 4


def test_what_is_no_whole_picture_sets_its_row_aside():
    jpeg = saved(np.asarray(Image.fromarray(COLOURS).resize((200, 200))), "JPEG")
    png = saved(RANDOM.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    cells = [jpeg[: len(jpeg) // 2], png[: len(png) // 2], svg, b"", b"not a picture", png, png[:20], b"%PDF-1.4"]
    found, bad, _ = read(cells, pa.binary())
    assert [place for place, f in enumerate(found) if f is not None] == [5]
    assert "cut short" in bad[0] and "cut short" in bad[1] and "is an SVG" in bad[2] and "is empty" in bad[3]
    assert all("must be a picture in PNG" in bad[place] for place in (4, 6, 7))


def test_a_long_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("weft.preprocess.pictures.MOST_BYTES", 100)
    (tmp_path / "a.png").write_bytes(saved(COLOURS))
    _, bad, _ = read(["a.png"], folder=tmp_path)
    assert "bytes, more than 100" in bad[0]


def test_large_pictures_are_shrunk_in_proportion_and_set_sizes_kept():
    picture = RANDOM.integers(0, 256, (200, 100, 3), dtype=np.uint8)
    (found,), _, _ = read([saved(picture)], pa.binary())
    expected = Image.fromarray(picture).resize((KEPT // 2, KEPT), Image.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(expected))
    (found,), _, _ = read([saved(picture)], pa.binary(), PicturePlan(side=20))
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(picture).resize((20, 20), Image.BILINEAR)))


def test_paths_begin_at_the_tables_folder_and_stay_in_it(tmp_path):
    folder = tmp_path / "table"
    (folder / "in").mkdir(parents=True)
    outside = tmp_path / "outside.png"
    for file in (folder / "in" / "a.png", outside):
        file.write_bytes(saved(COLOURS))
    (folder / "link.png").symlink_to(outside)
    cells = ["in/a.png", str(outside), "../outside.png", "link.png", "b.png", "in", "", "NA",
             "https://example.org/a.png", "data:image/png;base64,AAAA", "a\0b.png", "x" * 5_000]  # fmt: skip
    found, bad, _ = read(cells, folder=folder)
    assert [f is not None for f in found[:2]] == [True, True] and found[6] is None and found[7] is None
    assert set(bad) == {2, 3, 4, 5, 8, 9, 10, 11}
    assert "leads out of it" in bad[2] and "leads out of it" in bad[3] and "there is none" in bad[4]
    assert "is an address; nothing is fetched" in bad[8] and "is an address" in bad[9]
    assert "absolute path" in read(["in/a.png"])[1][0]


def test_bytes_with_a_path_are_read_as_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(GREY))
    cells = [{"bytes": saved(COLOURS), "path": "nowhere.png"}, {"bytes": None, "path": "a.png"}, None]
    (first, second, third), bad, _ = read(
        cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]), folder=tmp_path
    )
    assert not bad and third is None
    np.testing.assert_array_equal(first, COLOURS)
    np.testing.assert_array_equal(second[:, :, 0], GREY)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.list_(pa.uint8())), pa.list_(pa.list_(pa.uint8(), 10), 12), pa.list_(pa.list_(pa.int64()))]
)
def test_arrays_give_their_numbers(kind):
    (found, none), bad, _ = read([GREY.tolist(), None], kind)
    assert not bad and none is None
    np.testing.assert_array_equal(found[:, :, 0], GREY)


def test_arrays_of_colours_and_of_floats_in_a_stated_range():
    kind = pa.list_(pa.list_(pa.list_(pa.float32())))
    (found,), bad, _ = read([(COLOURS / 255.0 * 2 - 1).tolist()], kind, PicturePlan(range=(-1.0, 1.0)))
    assert not bad
    np.testing.assert_array_equal(found, COLOURS)


def test_arrays_that_are_no_pictures_set_their_row_aside():
    kind = pa.list_(pa.list_(pa.int32()))
    cells = [[[1, 2], [3]], [[1, 300]], [[-1, 0]], [], [[]], [[1, None]], [None, [1]], [[1, 2], [3, 4]]]
    found, bad, _ = read(cells, kind)
    assert set(bad) == {0, 1, 2, 3, 4, 5, 6} and found[7].shape == (2, 2, 1)
    assert "from 0 to 255" in bad[1] and "from 0 to 255" in bad[2]
    wide = pa.array([[[[1, 2], [3, 4]]]], pa.list_(pa.list_(pa.list_(pa.uint8()))))
    assert "H x W" in read(wide)[1][0]
    floats = pa.array([[[0.5, float("nan")]]], pa.list_(pa.list_(pa.float64())))
    assert "from 0 to 1" in read(floats, plan=PicturePlan(range=(0.0, 1.0)))[1][0]


def test_a_device_or_a_pipe_is_never_opened():
    assert Path("/dev/zero").exists()
    _, bad, _ = read(["/dev/zero"])
    assert "must be a file, is none" in bad[0]
