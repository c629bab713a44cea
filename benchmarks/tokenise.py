"""What Weft's way from clean text to token ids on disk costs over the tokenizer by itself (tokenizers, Rust).

    RAYON_NUM_THREADS=1 uv run python benchmarks/tokenise.py [--megabytes 30] [--rounds 3]

One JSON line: CPU seconds of learning 8,192 tokens and of encoding all texts, Weft and tokenizers in turn; what Weft
takes on top; whether the ids are equal; the peak memory of Weft's encoding beyond what was there before. Memory on
1.2 GB of text is what `benchmarks/large_text.py` measures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from large_text import write_text
from machine import machine, peak_gb
from weft.data.split import TRAIN
from weft.features.documents import Documents, encode_documents, learn_tokenizer
from weft.preprocess.ingest import ROW, CleanRows
from weft.progress import Silent

VOCABULARY = 8_192


def clean_rows(folder: Path, megabytes: float) -> tuple[CleanRows, pa.Table]:
    """Made-up lines, as the step before leaves them."""
    write_text(folder / "text.txt", int(megabytes * 10**6))
    lines = (folder / "text.txt").read_text().splitlines()
    table = pa.table({ROW: np.arange(len(lines)), "text": lines})
    with pa.ipc.new_file(folder / "clean.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=4_096)
    return CleanRows(folder / "clean.arrow", np.full(len(lines), TRAIN, np.uint8)), table


def alone(table: pa.Table) -> Tokenizer:
    """What tokenizers learns by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts(table), trainer)
    return tokenizer


def texts(table: pa.Table) -> Iterator[list[str]]:
    for batch in table.to_batches(max_chunksize=4_096):
        yield batch.column("text").to_pylist()


def timed(does: Callable[[], object]) -> float:
    cpu = time.process_time()
    does()
    return time.process_time() - cpu


def over(ours: list[float], alone: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, alone, strict=True)) - 1, 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clean, table = clean_rows(folder, given.megabytes)
        tokenizer = learn_tokenizer(clean, ["text"], VOCABULARY, 0)
        kept: list[Documents] = []

        def encode() -> None:
            shutil.rmtree(folder / "store", ignore_errors=True)
            kept[:] = [encode_documents(clean, "text", tokenizer, None, folder / "store", Silent())]

        def encode_alone() -> None:
            for some in texts(table):
                tokenizer.encode_batch_fast(some, add_special_tokens=False)

        work: dict[str, Callable[[], object]] = {
            "learn": lambda: learn_tokenizer(clean, ["text"], VOCABULARY, 0), "learn alone": lambda: alone(table),
            "encode": encode, "encode alone": encode_alone,
        }  # fmt: skip
        spent: dict[str, list[float]] = {name: [] for name in work}
        before = peak_gb()
        for _ in range(given.rounds):
            for name, does in work.items():
                spent[name].append(timed(does))
        middle = {name: statistics.median(each) for name, each in spent.items()}
        first = np.concatenate(
            [np.array(e.ids) for e in tokenizer.encode_batch_fast(next(texts(table)), add_special_tokens=False)]
        )
        print(json.dumps({
            "benchmark": "tokenise", "megabytes": given.megabytes,
            "cpu_seconds": {name: round(s, 2) for name, s in middle.items()},
            "over_the_tokenizer": {name: over(spent[name], spent[f"{name} alone"]) for name in ("learn", "encode")},
            "equal": bool((np.asarray(kept[0].tokens.values[: len(first)]) == first).all()),
            "grown_gb": round(peak_gb() - before, 2), **machine("tokenizers"),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
