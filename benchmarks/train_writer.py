"""A causal language model of 10 million parameters, context 256, beside nanoGPT and Hugging Face's Trainer.

    uv run --group bench python benchmarks/train_writer.py [--rows 16] [--steps 10] [--rounds 3] [--learn 960]
    uv run --with litgpt --with "transformers<5" python benchmarks/train_writer.py --learn 0 --ways "weft adamw" litgpt

One JSON line. ``rates``: tokens a second and a CPU second of whole training steps (data, forward, backward, clipping,
optimiser; Weft's also its averages and records), all ways in turn. ``learnt``: of the peers in so many steps of a
quarter of the rows and of Weft in 3 of 32 as many steps of half the rows, in turns: the loss in nats of 20,000
validation letters and the CPU seconds it took; a better loss in fewer seconds is what counts, as Weft's model and
optimiser are others. Each learns best from batches of that size. ``peak_gb``: each way alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import nanogpt
from machine import DATA, in_turn, machine, matmul_rate, peak_gb, peaks

CONTEXT = 256
Way = Callable[[], float]
Taught = tuple[Way, Callable[[], float]]
"""A step, or several, and the validation loss."""


class Letters:
    """Shakespeare, or so many made-up letters, as nanoGPT's train.bin and val.bin."""

    def __init__(self, made_up: int | None):
        text = (DATA / "shakespeare.txt").read_text() if made_up is None else "to be or not " * (made_up // 13)
        kinds = sorted(set(text))
        place = {c: i for i, c in enumerate(kinds)}
        self.kinds, self.text = len(kinds), text
        every = torch.tensor([place[c] for c in text])
        self.cut = int(0.9 * len(every))
        self.train, self.valid = every[: self.cut], every[self.cut :]

    def batches(self, rows: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(seed)
        while True:
            places = torch.randint(len(self.train) - CONTEXT - 1, (rows,), generator=random)
            pieces = torch.stack([self.train[p : p + CONTEXT + 1] for p in places])
            yield pieces[:, :-1], pieces[:, 1:]

    def judged(self, loss: Callable[[Tensor, Tensor], Tensor], rows: int) -> float:
        """Mean nats of a letter of the first 20,000 validation letters."""
        pieces = self.valid[: min(20_000, len(self.valid) // CONTEXT * CONTEXT) + 1]
        few = len(pieces) // CONTEXT
        x, y = pieces[: few * CONTEXT].view(few, CONTEXT), pieces[1 : few * CONTEXT + 1].view(few, CONTEXT)
        with torch.no_grad():
            lost = [loss(a, b).item() * len(a) for a, b in zip(x.split(rows), y.split(rows), strict=True)]
        return round(sum(lost) / few, 4)


def nano(letters: Letters, rows: int, total: int, bfloat16: bool, flash: bool) -> Taught:
    """nanoGPT by its own recipe."""
    torch.manual_seed(0)
    model = nanogpt.GPT(nanogpt.GPTConfig(vocab_size=letters.kinds, flash=flash))
    step, batches = nanogpt.training_step(model, total, bfloat16), letters.batches(rows, 0)

    def once() -> float:
        step(*next(batches))
        return rows * CONTEXT

    def judged() -> float:
        return letters.judged(lambda x, y: model(x, y), rows)

    return once, judged


def weft_writer(letters: Letters, rows: int, total: int, optimizer: str, rate: float | None = None) -> Taught:
    """The same of Weft: its default shape and recipe of a writer, the steps of its own loop."""
    from weft.features.documents import Documents
    from weft.features.pieces import Corpus, Marks
    from weft.features.ragged import Ragged
    from weft.language_defaults import AT_ONCE
    from weft.models.language import LanguageConfig, LanguageModel
    from weft.models.transformer import TransformerConfig
    from weft.progress import Silent
    from weft.training.checkpoint import Checkpoints
    from weft.training.language import TokenObjective
    from weft.training.loop import Loop, Recipe
    from weft.training.optimizers import Schedule
    from weft.training.tracking import Tracker

    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(TransformerConfig(384, 6, 6, attention="writing"), letters.kinds))
    ids = letters.train.numpy().astype(np.uint16)
    size = np.array([len(ids)])
    corpus = Corpus(Documents(Ragged(ids, np.array([0, len(ids)])), size, size), Marks(None, None, None), CONTEXT)
    cuts = corpus.cuts(np.arange(1))
    muon = optimizer == "muon"
    recipe = Recipe(
        100, rows, rate or (3e-3 if muon else 1e-3), 0.3 if muon else 0.1, 5, 0.99, True, 0, warmup=0.02, down="linear",
        optimizer="muon" if muon else "adamw", accumulate=-(-rows * CONTEXT // AT_ONCE),
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp())
    objective = TokenObjective(model)
    loop = Loop(
        objective, recipe, lambda numbers, epoch: corpus.batch(cuts, numbers, epoch), np.arange(len(cuts)), None,
        lambda model, team: 0.0, Tracker(folder), Checkpoints(folder / "checkpoints"), Silent(),
        weigh=lambda batch: float(batch.targets_BT.numel()),
    )  # fmt: skip
    loop.tracker.rewind(-1)
    loop.total, loop.schedule = total, Schedule(total, int(total * recipe.warmup) + 1, down=recipe.down)
    steps = (rows for epoch in range(recipe.epochs) for rows in loop._batches(epoch, 0))

    def once() -> float:
        loop._step(next(steps))
        return rows * CONTEXT

    def judged() -> float:
        own = {n: p.detach().clone() for n, p in loop._trained()}
        loop._put(loop.average)
        objective.eval()
        found = letters.judged(lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), rows)
        loop._put(own)
        return found

    return once, judged


def litgpt(letters: Letters, rows: int) -> Way:
    """The step of litgpt's `pretrain` by Lightning's Fabric; a GPT-NeoX of the same size, the numbers of nanoGPT."""
    from lightning.fabric import Fabric
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    torch.manual_seed(0)
    shape = {"n_layer": 6, "n_head": 6, "n_embd": 384, "bias": False}
    model = fabric.setup(GPT(Config(block_size=CONTEXT, padded_vocab_size=letters.kinds, **shape)))
    optimizer = fabric.setup_optimizers(
        torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.1, fused=True)
    )
    batches = letters.batches(rows, 0)

    def once() -> float:
        x, y = next(batches)
        fabric.backward(chunked_cross_entropy(model(x), y, chunk_size=0))
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        return rows * CONTEXT

    return once


def trainer(letters: Letters, rows: int, steps: int, attention: str) -> Taught:
    """So many steps of Hugging Face's Trainer at once: GPT-2 of the same size, bfloat16."""
    from torch.utils.data import TensorDataset
    from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments, logging

    logging.set_verbosity_error()
    shape: dict[str, Any] = {"attn_implementation": attention}
    config = GPT2Config(
        vocab_size=letters.kinds, n_positions=CONTEXT, n_embd=384, n_layer=6, n_head=6, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=rows, max_steps=steps, learning_rate=1e-3,
        weight_decay=0.1, adam_beta2=0.99, bf16=True, use_cpu=True, report_to=[], logging_strategy="no",
        save_strategy="no", disable_tqdm=True, lr_scheduler_type="cosine", dataloader_pin_memory=False,
    )  # fmt: skip
    pieces = letters.train[: len(letters.train) // CONTEXT * CONTEXT].view(-1, CONTEXT)

    def collate(some: list[tuple[Tensor]]) -> dict[str, Tensor]:
        ids = torch.stack([row for (row,) in some])
        return {"input_ids": ids, "labels": ids}

    def once() -> float:
        trained = Trainer(model, arguments, train_dataset=TensorDataset(pieces), data_collator=collate)
        trained.remove_callback(PrinterCallback)  # standard output is for the line of JSON
        trained.train()
        return rows * CONTEXT * steps

    def judged() -> float:
        model.eval()
        with torch.autocast("cpu", torch.bfloat16):
            return letters.judged(
                lambda x, y: F.cross_entropy(model(input_ids=x).logits.float().flatten(0, 1), y.flatten()), rows
            )

    return once, judged


def many(step: Way, steps: int) -> Way:
    return lambda: sum(step() for _ in range(steps))


def build(name: str, letters: Letters, rows: int, steps: int) -> Way:
    """Some steps of a way."""
    owner, _, how = name.partition(" ")
    if owner == "nanogpt":
        return many(nano(letters, rows, 1_000, "bfloat16" in how, "fused" in how)[0], steps)
    if owner == "weft":
        return many(weft_writer(letters, rows, 1_000, how)[0], steps)
    if owner == "litgpt":
        return many(litgpt(letters, rows), steps)
    return trainer(letters, rows, steps, how)[0]


WAYS = ["weft muon", "weft adamw", "nanogpt bfloat16, plain attention", "nanogpt bfloat16, fused attention",
        "nanogpt float32, fused attention", "trainer sdpa", "trainer eager"]  # fmt: skip


def learnt(letters: Letters, rows: int, steps: int, asked: list[str]) -> dict[str, dict[str, float]]:
    """The peers in so many steps of a quarter of the rows, Weft in 3 of 32 as many of half of them, side by side."""
    few, half, quarter = max(10, steps * 3 // 32), max(1, rows // 2), max(1, rows // 4)
    made: dict[str, tuple[Callable[[], Taught], int]] = {
        "nanogpt bfloat16, plain attention": (lambda: nano(letters, quarter, steps, True, False), steps),
        "weft muon": (lambda: weft_writer(letters, half, few, "muon", 4e-3), few),
        "trainer eager": (lambda: trainer(letters, quarter, steps, "eager"), 1),
    }
    ways = {name: (make(), count) for name, (make, count) in made.items() if name in asked}
    cpu = dict.fromkeys(ways, 0.0)
    for part in range(10):
        for name, ((step, _), count) in ways.items():
            started = time.process_time()
            many(step, count * (part + 1) // 10 - count * part // 10)()
            cpu[name] += time.process_time() - started
            print(f"{name}: {cpu[name]:.0f} CPU seconds", file=sys.stderr, flush=True)
    return {
        name: {"cpu_seconds": round(cpu[name], 1), "valid_nats": judged()}
        for name, ((_, judged), _) in ways.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="of each turn; 0: no rates")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--learn", type=int, default=960, help="the peers' steps to the loss to reach; 0: none")
    parser.add_argument("--made-up", type=int, help="letters in the place of Shakespeare's")
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    letters = Letters(given.made_up)
    if given.alone:
        build(given.alone, letters, given.rows, 3)()
        print(json.dumps({"peak_gb": peak_gb()}))
        return
    rates: dict[str, Any] = {}
    if given.steps:
        rates = in_turn({name: build(name, letters, given.rows, given.steps) for name in given.ways}, given.rounds)
    tokens = given.rows * CONTEXT
    print(json.dumps({
        "benchmark": "train_writer", "rows": given.rows, "context": CONTEXT, "rates": rates,
        "learnt": learnt(letters, given.rows, given.learn, given.ways) if given.learn else None,
        "peak_gb": {} if given.made_up else peaks(__file__, given.ways, "--rows", str(given.rows)),
        "matmul_gflops": {k: matmul_rate(tokens, 384, 1536, k == "bfloat16") for k in ("bfloat16", "float32")},
        **machine("transformers"),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
