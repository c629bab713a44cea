"""On a GPU: training a 350 M Llama shape, writing, and classifying in bulk, beside transformers. Not run on one yet.

    uv run --group bench python benchmarks/gpu.py [train generate classify] [--rows 8] [--rounds 3]
    uv run --group bench python benchmarks/gpu.py --tiny        # the same steps at a tiny size, on any machine

A JSON line each. ``train``: tokens a second in bfloat16 of Weft's own loop and of Hugging Face's Trainer with
torch.compile, in turn, each as a share of the measured peak of one product of bfloat16 matrices (6 operations a
parameter and token, and those of attention). ``generate``: tokens a second of greedy writing, batches of 1 and 16,
beside transformers with a static cache and the same weights. ``classify``: texts a second of `run.predict` with MiniLM.
And the peak of the device's memory of each way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify import rows_of, weft_labels
from machine import in_turn, machine
from weft.features.pieces import TextBatch
from weft.models.checkpoints import load_hf
from weft.models.language import Continuation, LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.language import TokenObjective
from weft.training.loop import Loop, Recipe
from weft.training.tracking import Tracker

Way = Callable[[], float]


@dataclass(frozen=True)
class Shape:
    width: int = 1_024
    layers: int = 24
    heads: int = 16
    hidden: int = 2_736
    vocabulary: int = 32_000
    context: int = 1_024
    written: int = 256


TINY = Shape(64, 2, 2, 128, 500, 32, 8)


def made(device: str, builders: dict[str, Callable[[], Way]]) -> tuple[dict[str, Way], dict[str, float]]:
    """Each way, built and run once, and the GB of the device that this took at most, those of the others apart."""
    ways, peaks = {}, {}
    for name, build in builders.items():
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        ways[name] = synchronised(device, build())
        ways[name]()
        if device == "cuda":
            peaks[name] = round((torch.cuda.max_memory_allocated() - before) / 1e9, 2)
    return ways, peaks


def synchronised(device: str, way: Way) -> Way:
    """A clock may be read only when the device has done what it was given."""

    def once() -> float:
        made = way()
        if device == "cuda":
            torch.cuda.synchronize()
        return made

    return once


def peak_flops(device: str, size: int) -> float:
    """Operations a second of one product of square bfloat16 matrices, the best of 20."""
    x, y = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    multiply = synchronised(device, lambda: float((x @ y).numel()))
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def flops_a_token(model: torch.nn.Module, s: Shape) -> float:
    """Of a training step: 6 for each number that multiplies, and attention's products (half of the square is seen)."""
    return 6 * sum(p.numel() for p in model.parameters()) + 6 * s.layers * s.width * s.context


def writer(s: Shape, device: str) -> LanguageModel:
    torch.manual_seed(0)
    backbone = TransformerConfig(s.width, s.layers, s.heads, ffn_width=s.hidden, attention="writing")
    return LanguageModel(LanguageConfig(backbone, s.vocabulary)).to(device)


def weft_steps(model: LanguageModel, s: Shape, rows: int, steps: int, device: str) -> Way:
    random = np.random.default_rng(0)

    def fetch(numbers: np.ndarray, epoch: int) -> TextBatch:
        ids = torch.from_numpy(random.integers(0, s.vocabulary, (len(numbers), s.context + 1)))
        return TextBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()).to(device)

    folder = Path(tempfile.mkdtemp())
    loop = Loop(
        TokenObjective(model), Recipe(1_000, rows, 3e-4, 0.1, 5, 0.99, True, 0), fetch, np.arange(rows), None,
        lambda model, team: 0.0, Tracker(folder), Checkpoints(folder / "checkpoints"), Silent(),
    )  # fmt: skip
    loop.tracker.rewind(-1)

    def once() -> float:
        for _ in range(steps):
            loop._step(np.arange(rows))
        return rows * s.context * steps

    return once


def llama(s: Shape) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=s.vocabulary, hidden_size=s.width, num_hidden_layers=s.layers, num_attention_heads=s.heads,
        intermediate_size=s.hidden, max_position_embeddings=2 * s.context, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    ))  # fmt: skip


def trainer_steps(s: Shape, rows: int, steps: int, device: str) -> Way:
    from transformers import PrinterCallback, Trainer, TrainingArguments

    model = llama(s)
    ids = torch.randint(0, s.vocabulary, (rows * steps, s.context))
    rows_of_ids = [{"input_ids": row, "labels": row} for row in ids]
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=rows, max_steps=steps, bf16=True, report_to=[],
        use_cpu=device == "cpu", torch_compile=device == "cuda", logging_strategy="no", save_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    trains = Trainer(model, arguments, train_dataset=rows_of_ids)
    trains.remove_callback(PrinterCallback)

    def once() -> float:
        trains.train()
        return rows * s.context * steps

    return once


def train(s: Shape, rows: int, rounds: int, device: str) -> dict[str, Any]:
    model, steps = writer(s, device), 2 if s is TINY else 50
    ways, peaks = made(device, {
        "weft": lambda: weft_steps(model, s, rows, steps, device),
        "trainer": lambda: trainer_steps(s, rows, steps, device),
    })  # fmt: skip
    rates = in_turn(ways, rounds)
    peak = peak_flops(device, 256 if s is TINY else 8_192)
    share = {name: round(r["a_second"] * flops_a_token(model, s) / peak, 3) for name, r in rates.items()}
    return {"rates": rates, "peak_tflops": round(peak / 1e12, 2), "share_of_peak": share,
            "parameters": sum(p.numel() for p in model.parameters()), "peak_device_gb": peaks}  # fmt: skip


def generate(s: Shape, rows: int, rounds: int, device: str) -> dict[str, Any]:
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    other = llama(s).eval()
    with tempfile.TemporaryDirectory() as folder:
        other.save_pretrained(folder)
        model = load_hf(folder).model.to(device, kind).eval()
    assert isinstance(model, LanguageModel)
    other = other.to(device, kind)

    def ours(many: int) -> torch.Tensor:
        text = Continuation(model, torch.ones(many, 16, dtype=torch.int64, device=device))
        said = []
        for _ in range(s.written):
            said.append(text.logits_BV.argmax(dim=-1))
            text.step(said[-1])
        return torch.stack(said, dim=1)

    def theirs(many: int) -> torch.Tensor:
        ids = torch.ones(many, 16, dtype=torch.int64, device=device)
        found = other.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=s.written,
                               min_new_tokens=s.written, do_sample=False, cache_implementation="static")  # fmt: skip
        return found[:, 16:]

    def writes(write: Callable[[int], torch.Tensor], many: int) -> Callable[[], Way]:
        return lambda: lambda: write(many).numel()

    builders: dict[str, Callable[[], Way]] = {}
    for many in (1, 16):
        builders[f"weft, {many}"] = writes(ours, many)
        builders[f"transformers, static cache, {many}"] = writes(theirs, many)
    ways, peaks = made(device, builders)
    return {"rates": in_turn(ways, rounds), "peak_device_gb": peaks,
            "equal_first_tokens": bool((ours(1)[:, :4] == theirs(1)[:, :4]).all())}  # fmt: skip


def classify(s: Shape, rows: int, rounds: int, device: str) -> dict[str, Any]:
    texts, labels = rows_of(made_up=s is TINY)
    cut, many = (100, 100) if s is TINY else (1_000, 20_000)
    said, exact = weft_labels(False, texts[:cut], labels[:cut], Path(tempfile.mkdtemp()), 0.5)
    some = texts[cut : cut + many]
    ways, peaks = made(
        device, {"weft": lambda: lambda: len(said(some)), "weft, float32": lambda: lambda: len(exact(some))}
    )
    rates = in_turn(ways, rounds)
    return {
        "rates": rates,
        "peak_device_gb": peaks,
        "equal": statistics.mean(a == b for a, b in zip(said(some), exact(some), strict=True)),
    }


WORK = {"train": train, "generate": generate, "classify": classify}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", nargs="*", default=list(WORK), help=" ".join(WORK))
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.tiny:
        raise SystemExit("this benchmark needs a GPU; --tiny runs its steps at a tiny size on any machine.")
    for name in given.work:
        found = WORK[name](TINY if given.tiny else Shape(), given.rows, given.rounds, device)
        which = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        print(json.dumps({"benchmark": "gpu", "work": name, "tiny": given.tiny, "device": which, **found,
                          **machine("transformers")}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
