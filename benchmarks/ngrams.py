"""What Shakespeare's letters cost simple models: n-grams of every order, and LZMA.

    uv run python benchmarks/ngrams.py

The first 90 % are learnt, the last 10 % asked, as the language models are. One JSON line each: bits a letter, seconds.
"""

from __future__ import annotations

import json
import lzma
import math
import resource
import time
from pathlib import Path

import numpy as np

from weft.results.ngrams import NGram

DATA = Path(__file__).parents[2] / "shared" / "data"


def main() -> None:
    text = (DATA / "shakespeare.txt").read_text(encoding="utf-8")
    letters, ids = np.unique(list(text), return_inverse=True)
    cut = int(0.9 * len(ids))
    for order in range(1, 9):
        started = time.monotonic()
        model = NGram(len(letters), order).fit([ids[:cut]])
        learnt = time.monotonic()
        nats = model.nats(ids[cut:]) / (len(ids) - cut - 1)
        print(json.dumps({
            "benchmark": "ngrams", "order": order, "nats": round(nats, 4), "bits": round(nats / math.log(2), 4),
            "learn_seconds": round(learnt - started, 2), "ask_seconds": round(time.monotonic() - learnt, 2),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        }), flush=True)  # fmt: skip
    started = time.monotonic()
    # LZMA remembers the last 64 MiB: what it needs for the last part after the first
    both, first = (len(lzma.compress(part.encode(), preset=9)) for part in (text, text[:cut]))
    bits = 8 * (both - first) / len(text[cut:].encode())
    print(json.dumps({
        "benchmark": "ngrams", "order": "lzma", "nats": round(bits * math.log(2), 4), "bits": round(bits, 4),
        "seconds": round(time.monotonic() - started, 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
