"""Search in an index of real texts: exact against the graph, one query and many.

    uv run python benchmarks/search.py [--vectors FILE.npy]

101,000 texts of the test data (English sentences, questions to banks and assistants, reviews; NusaX) as vectors of the
real MiniLM; the last 1,000 are the queries. Embedding takes about 20 minutes on one core; with
``--vectors`` the vectors are kept in a file, and taken from it when it is there. One JSON line a figure.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from machine import minilm
from weft.exchange import open_text_model
from weft.inference import output
from weft.inference.embed import Embedder
from weft.inference.search import GraphBuilder, VectorIndex, recall

DATA = Path(__file__).parents[2] / "shared" / "data"
ROWS, QUERIES = 100_000, 1_000


def embedded() -> np.ndarray:
    """Vectors of different texts in a random order."""
    texts = pq.read_table(DATA / "translation_en_zh.parquet")["en"].to_pylist()
    texts += pacsv.read_csv(DATA / "banking77_train.csv")["text"].to_pylist()
    for file in ("clinc150", "sentiment_multilingual"):
        texts += pq.read_table(DATA / f"{file}.parquet")["text"].to_pylist()
    reviews = pq.read_table(DATA / "clothing_reviews.parquet")
    texts += [t for t in reviews["title"].to_pylist() if t]
    texts += [t[:160] for t in reviews["review_text"].to_pylist() if t]
    texts = list(dict.fromkeys(t for t in texts if t))
    np.random.default_rng(0).shuffle(texts)
    embedder = Embedder(open_text_model(Path(minilm())))
    chosen = texts[: ROWS + QUERIES]
    return np.concatenate([embedder(chosen[i : i + 1_024])[0] for i in range(0, len(chosen), 1_024)])


def say(**figures: object) -> None:
    print(json.dumps({"benchmark": "search", **figures}), flush=True)


def timed(index: VectorIndex, queries: np.ndarray) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    places = index.search(queries, 10)[1]
    return time.perf_counter() - started, places


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=Path)
    file = parser.parse_args().vectors
    vectors = np.load(file) if file is not None and file.exists() else embedded()
    if file is not None and not file.exists():
        np.save(file, vectors)
    stored, queries = vectors[:ROWS], vectors[ROWS:]
    width = stored.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.parquet"
        started = time.perf_counter()
        builder = GraphBuilder(path, width)
        for start in range(0, ROWS, 1_024):
            builder.add(stored[start : start + 1_024])
        builder.save()
        say(what="build the graph", seconds=round(time.perf_counter() - started, 1))
        schema = builder.schema(pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), width))]))
        with output.writing(path, schema) as writer:
            for start in range(0, ROWS, 1_024):
                some = stored[start : start + 1_024]
                column = pa.FixedSizeListArray.from_arrays(pa.array(some.ravel()), width)
                writer.write(pa.table([pa.array(range(start, start + len(some))), column], schema=schema))
        say(what="sizes", index_mb=path.stat().st_size // 10**6,
            graph_mb=path.with_name(builder.name).stat().st_size // 10**6)  # fmt: skip
        say(what="recall as embed measures it", recall=round(recall(path, width), 4))
        found = {}
        for how in ("exact", "graph"):
            index = VectorIndex(path, width, exact=how == "exact")
            one = [timed(VectorIndex(path, width, exact=how == "exact"), queries[i : i + 1])[0] for i in range(20)]
            seconds, found[how] = timed(index, queries)
            say(what=how, one_query_ms=round(1e3 * float(np.median(one)), 1), thousand_queries_s=round(seconds, 2))
        hits = [len(set(a) & set(b)) for a, b in zip(found["exact"].tolist(), found["graph"].tolist(), strict=True)]
        say(what="recall of the 10 nearest to new queries", recall=round(sum(hits) / len(queries) / 10, 4))


if __name__ == "__main__":
    main()
