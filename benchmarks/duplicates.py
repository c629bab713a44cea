"""Copies: how many of those planted are found and what is found beside them; rows a second and memory.

    uv run --with datasketch python benchmarks/duplicates.py planted
    uv run python benchmarks/duplicates.py make /big/copies.parquet --rows 2000000
    uv run python benchmarks/duplicates.py speed /big/copies.parquet --way near --memory 2GB

``planted``: real texts (clothing reviews, Song poems) with copies of which some words or characters are changed; what
is found beside the exact Jaccard similarity of all pairs by scikit-learn, on the same shingles, and beside datasketch's
MinHashLSH at the same similarity (where it is installed). ``speed``: the table of ``benchmarks/memory.py`` in which one
row in twenty is an exact copy and one in twenty has a word changed, through the pass over the table (read, clean, find
copies, split), with the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import CountVectorizer

from memory import GROUP, pieces
from weft import config, memory
from weft.data.plan import look
from weft.data.table import Table
from weft.data.task_plans import look_texts
from weft.preprocess.duplicates import ALIKE
from weft.preprocess.ingest import COPY, ingest, make_cleaner
from weft.progress import Silent

DATA = Path("../shared/data")


def changed(text: str, edits: int, random: np.random.Generator, chinese: bool) -> str:
    """So many words (Chinese: characters) put in the place of others, drawn from the text itself."""
    parts = list(text) if chinese else text.split(" ")
    for place in random.integers(0, len(parts), edits):
        parts[place] = parts[random.integers(0, len(parts))]
    return ("" if chinese else " ").join(parts)


def found_by_weft(texts: list[str], work: Path) -> tuple[np.ndarray, float]:
    """Of each text the one it is a copy of, -1: of none; CPU seconds."""
    settings = config.from_mapping({"target": {"next_token": "t"}, "preprocess": {"duplicates": "near"}})
    table = Table.of(pa.table({"t": texts}))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    plan, start = look_texts(settings, table), time.process_time()
    ingest(settings, plan, table, make_cleaner(settings, plan), work / "c.arrow", work / "r.parquet", Silent())
    seconds = time.process_time() - start
    rows = pq.read_table(work / "duplicates.parquet")
    of = np.full(len(texts), -1)
    of[rows.column("row").to_numpy()] = rows.column("duplicate_of").to_numpy()
    return of, seconds


def found_by_datasketch(shingled: list[set[bytes]]) -> tuple[np.ndarray, float]:
    """The first earlier text that its index proposes, at the same similarity with 256 permutations."""
    from datasketch import MinHash, MinHashLSH

    start = time.process_time()
    index, of = MinHashLSH(threshold=ALIKE, num_perm=256), np.full(len(shingled), -1)
    for number, pieces_ in enumerate(shingled):
        sketch = MinHash(num_perm=256)
        sketch.update_batch(list(pieces_))
        near = index.query(sketch)
        if near:
            of[number] = min(near)
        else:
            index.insert(number, sketch)
    return of, time.process_time() - start


def planted(name: str, own: list[str], chinese: bool, count: int) -> None:
    random = np.random.default_rng(0)
    own = list(dict.fromkeys(t for t in own if t and len(t) > (20 if chinese else 60)))[:count]
    copies = [changed(t, int(random.integers(0, 8)), random, chinese) for t in own]
    texts = [t for pair in zip(own, copies, strict=True) for t in pair]
    texts = [texts[i] for i in random.permutation(len(texts))]
    plain = [re.sub(rb"[^0-9a-z\x80-\xff]", b"", t.lower().encode()) for t in texts]
    counts = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, lowercase=False).fit_transform(
        [p.decode("latin-1") for p in plain]
    )
    shared = (counts @ counts.T).toarray().astype(np.int32)
    sizes = shared.diagonal()
    alike = shared / (sizes[:, None] + sizes - shared)
    np.fill_diagonal(alike, 0)
    near = alike >= ALIKE
    ways = {"weft": found_by_weft(texts, Path("/tmp/weft-duplicates"))}
    try:
        ways["datasketch"] = found_by_datasketch([{p[i : i + 5] for i in range(len(p) - 4)} for p in plain])
    except ImportError:
        print("datasketch is not installed: left out", file=sys.stderr)
    for way, (of, seconds) in ways.items():
        left, kept = np.flatnonzero(of >= 0), of < 0
        right = int(near[left, of[left]].sum())
        missed = int(near[np.ix_(kept, kept)].any(axis=1).sum() // 2)  # pairs that still stand side by side
        print(json.dumps({
            "what": "planted", "texts": name, "way": way, "rows": len(texts), "pairs_alike": int(near.sum()) // 2,
            "left_out": len(left), "truly_alike": right, "precision": round(right / len(left), 4),
            "still_there": missed, "recall": round(right / (right + missed), 4),
            "rows_a_cpu_second": round(len(texts) / seconds),
        }), flush=True)  # fmt: skip


def make(path: Path, rows: int) -> None:
    writer, random = None, np.random.default_rng(3)
    for table in pieces(rows):
        share, order = table.num_rows // 20, random.permutation(table.num_rows)
        copies, of = order[: 2 * share], order[2 * share : 4 * share]
        source = np.arange(table.num_rows)
        source[copies] = of
        table = table.take(pa.array(source))
        texts = table.column("review").to_pylist()
        for place in copies[share:].tolist():
            texts[place] = changed(texts[place], 1, random, False)
        table = table.set_column(table.schema.get_field_index("review"), "review", pa.array(texts))
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
        writer.write_table(table, row_group_size=GROUP)
    assert writer is not None
    writer.close()


def speed(path: Path, way: str, bound: str) -> None:
    memory.limit(bound)
    settings = config.from_mapping({
        "data": {"source": str(path), "split": {"test": 0.05, "valid": 0.05}}, "target": "answer",
        "features": {"review": {"type": "text"}}, "preprocess": {"duplicates": way},
    })  # fmt: skip
    table = Table.open(str(path))
    plan, work = look(settings, table), path.with_suffix(f".{os.getpid()}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    used: list[memory.Used] = []
    cpu = -time.process_time()
    with memory.measured(used):
        clean, parts, found = ingest(
            settings, plan, table, make_cleaner(settings, plan), work / "c.arrow", work / "r.parquet", Silent()
        )
    cpu += time.process_time()
    facts: dict[str, Any] = {k: v for k, v in found.copies.items() if "examples" not in k}
    assert found.read == len(clean) + found.rejected and (parts == COPY).sum() == facts["left_out"]
    facts |= {"copies": facts["rows"], "cpu_seconds": round(cpu, 1), **used[0].of(found.read)}
    print(json.dumps({"what": "speed", "way": way, **facts}), flush=True)
    shutil.rmtree(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("planted", "make", "speed"))
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--way", choices=("off", "exact", "near"), default="near")
    parser.add_argument("--memory", default="2GB")
    given = parser.parse_args()
    if given.what == "planted":
        reviews = pq.read_table(DATA / "clothing_reviews.parquet", columns=["review_text"]).column(0).to_pylist()
        poems = pq.read_table(DATA / "poems_zh.parquet", columns=["text"]).column(0).to_pylist()
        planted("clothing reviews", reviews, False, 3_000)
        planted("Song poems", poems, True, 3_000)
    elif given.what == "make":
        make(given.table, given.rows)
    else:
        speed(given.table, given.way, given.memory)


if __name__ == "__main__":
    print(json.dumps({"cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS")}), file=sys.stderr)
    main()
