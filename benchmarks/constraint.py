"""What a constraint costs: the grammar of a large vocabulary, and the mask of one token. One JSON line each.

python benchmarks/constraint.py [tokens]
"""

import json
import sys
import time

import numpy as np
from tokenizers import Tokenizer, decoders, models

from weft.inference.constraint import Constraint, Grammar
from weft.inference.pieces import BYTES

CONSTRAINTS = {
    "3 choices": Constraint.one_of(["yes", "no", "maybe"]),
    "10,000 choices": Constraint.one_of([f"choice {i}" for i in range(10_000)]),
    "regex": Constraint.matching("[a-z ]{3,40}[.]"),
    "schema": Constraint.json_schema(
        {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        }
    ),
}


def vocabulary(size: int) -> Tokenizer:
    """Byte-level tokens: every byte, then random words."""
    random = np.random.default_rng(0)
    alphabet = list('abcdefghijklmnopqrstuvwxyz ABCDE{}":,0123456789花中文')
    letters = {byte: letter for letter, byte in BYTES.items()}
    words = dict.fromkeys(["<end>", *BYTES])
    while len(words) < size:
        word = "".join(random.choice(alphabet, random.integers(1, 9)))
        words.setdefault("".join(letters[b] for b in word.encode()))
    made = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, []))
    made.decoder = decoders.ByteLevel()
    return made


def main(size: int) -> None:
    tokenizer = vocabulary(size)
    for name, constraint in CONSTRAINTS.items():
        started = time.perf_counter()
        grammar = Grammar(constraint, tokenizer, size, (0,))
        built = time.perf_counter() - started
        random = np.random.default_rng(0)
        seconds = []
        for _ in range(20):
            state = grammar.begin([5])
            for _ in range(20):
                choices = np.flatnonzero(state.allowed[1:]) + 1
                if not len(choices):
                    break
                token = int(random.choice(choices))
                started = time.perf_counter()
                state.take(token)
                seconds.append(time.perf_counter() - started)
        print(
            json.dumps(
                {
                    "constraint": name, "tokens": size, "build_seconds": round(built, 3),
                    "mask_microseconds": {"median": round(1e6 * float(np.median(seconds))),
                                          "p99": round(1e6 * float(np.quantile(seconds, 0.99)))},
                    "masks": len(seconds),
                }
            )
        )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 128_000)
