"""Small tables with a known truth, for tests that train."""

import numpy as np
import pyarrow as pa

FAST = {
    "model": {"width": 16, "layers": 1, "copies": 1}, "training": {"epochs": 3, "batch_rows": 32},
    "results": {"explain": "off"},
}  # fmt: skip


def mixed(rows=400, seed=0):
    """Number, category, time and text that each tell something of the class ``bought``; some values missing."""
    random = np.random.default_rng(seed)
    price = random.lognormal(3, 1, rows)
    colour = random.choice(["red", "green", "蓝"], rows)
    seconds = random.integers(1_600_000_000, 1_700_000_000, rows)
    words = np.where(random.random(rows) < 0.5, "lovely soft fabric", "returned it at once")
    score = (price < 20) * 1.0 + (colour == "red") * 1.0 + np.char.startswith(words, "lovely") * 1.5
    bought = np.where(score + random.normal(0, 0.4, rows) > 1.7, "yes", "no")
    review = [f"{w}, size {random.integers(1, 60)} was {random.choice(['small', 'fine', 'huge'])}" for w in words]
    gone = random.random(rows) < 0.1
    return pa.table(
        {
            "price": pa.array(price, mask=gone),
            "colour": pa.array(colour, mask=np.roll(gone, 5)),
            "when": pa.array(seconds, pa.timestamp("s")),
            "review": pa.array(review, mask=np.roll(gone, 9)),
            "bought": bought,
        }
    )


def numeric(rows=400, seed=0, noise=0.3):
    """``y`` is linear in ``a`` and ``b``; ``label`` says whether it is above its median; ``c`` is noise."""
    random = np.random.default_rng(seed)
    a, b, c = random.normal(size=(3, rows))
    y = 2 * a - b + random.normal(0, noise, rows) + 5
    return pa.table({"a": a, "b": b, "c": c, "y": y, "label": np.where(y > np.median(y), "high", "low")})


def pictured(rows=200, seed=0, size=8):
    """:func:`mixed` with a column ``photo`` of arrays [H][W]; it is bright to the left where ``side`` is left; some
    missing."""
    random = np.random.default_rng(seed)
    left = random.random(rows) < 0.5
    pixels = random.integers(0, 120, (rows, size, size)).astype(np.uint8)
    half = size // 2
    pixels[left, :, :half] += 120
    pixels[~left, :, half:] += 120
    kind = pa.list_(pa.list_(pa.uint8(), size), size)
    gone = np.arange(rows) % 11 == 3
    cells = [None if g else p.tolist() for g, p in zip(gone, pixels, strict=True)]
    table = mixed(rows, seed).append_column("photo", pa.array(cells, kind))
    return table.append_column("side", pa.array(np.where(left, "left", "right")))


def fused(rows=120, seed=0):
    """As ``mixed``, with several columns of each type; in some rows any of them is missing."""
    random = np.random.default_rng(seed + 1)
    table = mixed(rows, seed).drop_columns(["bought"])
    more = {
        "weight": random.normal(2, 1, rows),
        "brand": random.choice(["ora", "vel", "quim"], rows),
        "shop": random.choice(["north", "south"], rows),
        "sent": pa.array(random.integers(1_600_000_000, 1_700_000_000, rows), pa.timestamp("s")),
        "answer": random.choice(["we are sorry", "thank you for your kind words, come again", "done"], rows),
    }
    for name, values in more.items():
        array = values if isinstance(values, pa.Array) else pa.array(values)
        table = table.append_column(name, pa.array(array.to_pylist(), array.type, mask=random.random(rows) < 0.1))
    for name, size in (("front", 10), ("back", 6)):
        pixels = random.integers(0, 256, (rows, size, size)).astype(np.uint8)
        cells = [
            None if gone else picture.tolist() for picture, gone in zip(pixels, random.random(rows) < 0.1, strict=True)
        ]
        table = table.append_column(name, pa.array(cells, pa.list_(pa.list_(pa.uint8()))))
    for name in ("had", "seen"):
        cells = [
            None if gone else [f"i{k}" for k in random.integers(0, 20, count)]
            for count, gone in zip(random.integers(1, 6, rows), random.random(rows) < 0.1, strict=True)
        ]
        table = table.append_column(name, pa.array(cells, pa.list_(pa.string())))
    return table.append_column("bought", mixed(rows, seed)["bought"])
