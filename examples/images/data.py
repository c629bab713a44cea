"""Writes digits/0 to digits/9: 1,797 handwritten digits of 8 x 8 pixels (Alpaydin & Kaynak 1998, CC BY 4.0)."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

found = load_digits()
for number, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
    folder = Path("digits", str(label))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15).astype("uint8")).save(folder / f"{number}.png")
