"""Fashion-MNIST by the official split: Weft on a table of pictures, beside a net of two convolutions.

    uv run python benchmarks/images.py [--epochs N] [--judge valid|test] [--set training.augment.flip=true]

Prints one JSON line. CPU minutes are those of the process while it trained, over all its threads. The pictures are
written as PNG bytes into a Parquet file in a temporary folder; Weft reads that. ``--judge valid`` never opens the test.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from weft import config, pipeline
from weft.progress import Spoken

DATA = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist.npz"
NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
VALID = 5_000


def parts(judge: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pictures and classes of train, valid and test, shuffled; judged on valid, test is another part of train."""
    data = np.load(DATA)
    order = np.random.default_rng(0).permutation(len(data["x_train"]))
    x, y = data["x_train"][order], data["y_train"][order]
    if judge == "test":
        cuts = {"train": slice(VALID, None), "valid": slice(0, VALID)}
        return {n: (x[c], y[c]) for n, c in cuts.items()} | {"test": (data["x_test"], data["y_test"])}
    cuts = {"train": slice(2 * VALID, None), "valid": slice(0, VALID), "test": slice(VALID, 2 * VALID)}
    return {n: (x[c], y[c]) for n, c in cuts.items()}


def write(found: dict[str, tuple[np.ndarray, np.ndarray]], path: Path, rows: int | None) -> None:
    """The table: picture (PNG), item, part."""
    cells: list[bytes] = []
    items: list[str] = []
    split: list[str] = []
    for name, (x, y) in found.items():
        for picture, label in zip(x[:rows] if name == "train" else x, y[:rows] if name == "train" else y, strict=True):
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "PNG")
            cells.append(stream.getvalue())
            items.append(NAMES[label])
            split.append(name)
    pq.write_table(pa.table({"picture": cells, "item": items, "part": split}), path)


def ours(folder: Path, changes: list[str]) -> dict[str, Any]:
    text = f"data: {{source: {folder / 'fashion.parquet'}, split: {{column: part}}}}\ntarget: item\n"
    settings = config.loads(text, changes=["results.baselines=false", *changes])
    wall, cpu = time.monotonic(), time.process_time()
    run = pipeline.run(settings, out=folder / "run", say=Spoken())
    (model,) = run.figures["models"]
    return {
        "accuracy": model["metrics"]["accuracy"], "log_loss": model["metrics"]["log_loss"]["value"],
        "parameters": run.figures["model"]["parameters"], "shape": run.figures["model"]["shape"],
        "epochs": run.figures["model"]["epochs"], "training_seconds": run.figures["seconds"]["model"],
        "cpu_minutes": round((time.process_time() - cpu) / 60, 1), "minutes": round((time.monotonic() - wall) / 60, 1),
    }  # fmt: skip


def two_convolutions(found: dict[str, tuple[np.ndarray, np.ndarray]], epochs: int) -> dict[str, Any]:
    """5x5 convolutions of 32 and 64 channels with pooling, a hidden layer, dropout: the net that people begin with."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.4), nn.Linear(3136, 128), nn.ReLU(), nn.Dropout(0.4),
        nn.Linear(128, 10),
    )  # fmt: skip
    data = {n: ((torch.from_numpy(x)[:, None] / 255 - 0.286) / 0.353, torch.from_numpy(y).long())
            for n, (x, y) in found.items()}  # fmt: skip
    x, y = data["train"]
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    best, answer, cpu = 0.0, 0.0, time.process_time()
    for _ in range(epochs):
        net.train()
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            valid, test = (
                torch.cat([net(p).argmax(1) for p in data[n][0].split(1000)]).eq(data[n][1]).float().mean().item()
                for n in ("valid", "test")
            )
        if valid > best:
            best, answer = valid, test
    return {
        "accuracy": answer, "parameters": sum(p.numel() for p in net.parameters()), "epochs": epochs,
        "cpu_minutes": round((time.process_time() - cpu) / 60, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", choices=("valid", "test"), default="valid")
    parser.add_argument("--rows", type=int)
    parser.add_argument(
        "--beside", type=int, default=0, help="epochs of the net of two convolutions; 0: it is left out"
    )
    parser.add_argument("--set", dest="changes", action="append", default=[])
    arguments = parser.parse_args()
    found = parts(arguments.judge)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "judged": arguments.judge, "set": arguments.changes}
    with tempfile.TemporaryDirectory() as folder:
        write(found, Path(folder) / "fashion.parquet", arguments.rows)
        result["weft"] = ours(Path(folder), arguments.changes)
    if arguments.beside:
        result["two convolutions"] = two_convolutions(found, arguments.beside)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
