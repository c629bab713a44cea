"""Small runs as this version leaves them, and what they answer: python -m tests.releases.make, once a release.

Every later version must open them and answer the same (tests/releases/test_releases.py).
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from tests.tables import mixed
from tests.texts import novel

import weft
from weft.runs.run import Run

HERE = Path(__file__).parent
SETTINGS = {"model": {"width": 8, "layers": 1}, "training": {"epochs": 4}}
NEEDED = (
    "weft.yaml", "model.safetensors", "config.json", "columns.json", "tokenizer.json", "tokenizer_config.json",
    "report.json", "manifest.json", "rejected.parquet", "split.npy", "catalogue.arrow", "users.arrow",
)  # fmt: skip


def answers(run: Run, kind: str, folder: Path) -> list:
    """What a run of the kind says of the rows that are kept with it, or what texts cost it."""
    if kind == "writer":
        return run.costs(["The cat sat on a mat.", "猫"]).tolist()
    return run.predict(folder / ("events.csv" if kind == "items" else "rows.csv")).to_pylist()


def events() -> pa.Table:
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(30), 5)
    return pa.table({"user": user, "item": [f"i{n}" for n in (user + draw.integers(0, 4, 150)) % 9]})


def main() -> None:
    folder = HERE / version("weft")
    folder.mkdir()  # one that is there is kept as it is
    pacsv.write_csv(mixed(12, seed=3), folder / "rows.csv")
    pacsv.write_csv(events().slice(0, 30), folder / "events.csv")
    text = pa.table({"text": novel(6_000).split("\n")})
    tables = {
        "class": (mixed(120), "bought", {"results": {"explain": "off"}}),
        "number": (mixed(120), "price", {"results": {"explain": "off"}, "features": {"review": "off"}}),
        "writer": (text, {"next_token": "text"}, {}),
        "items": (events(), {"column": "item", "type": "ranking", "user": "user"}, {}),
    }
    for kind, (table, target, more) in tables.items():
        work = folder / "work"
        run = weft.train(table, target, work, quiet=True, **SETTINGS, **more)
        (folder / kind).mkdir()
        for name in NEEDED:
            if (work / name).exists():
                shutil.copy(work / name, folder / kind / name)
        shutil.rmtree(work)
        run = weft.load(folder / kind)
        (folder / f"{kind}.json").write_text(
            json.dumps(answers(run, kind, folder), indent=0, ensure_ascii=False) + "\n"
        )


if __name__ == "__main__":
    main()
