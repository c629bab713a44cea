"""Greedy writing by a model of Llama's shape with random weights, beside llama.cpp and transformers.

    OMP_NUM_THREADS=1 uv run --with llama-cpp-python python benchmarks/writing.py

llama-cpp-python is compiled from source for the processor that it is installed on, so that it is in no group; without
it Weft and transformers alone are measured. The shape is SmolLM-135M's; llama.cpp reads what ``weft export --to gguf``
wrote. A line of JSON a setting: tokens a second and a CPU second, prompts of 32 tokens read included, each way in turn.
In float32 the tokens of Weft must be those of transformers; with fewer bits random weights, whose best logits are near
one another, choose others, and ``equal`` says what share is the same before the first that is not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sysconfig
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from machine import in_turn, machine, peak_gb, peaks

FEW_BITS: dict[str, Literal["int8", "int4"]] = {"int8": "int8", "int4": "int4"}
KINDS = ("float32", "bfloat16", "int8", "int4")
STATIC = "transformers, static cache"
PROMPT = 32
Write = Callable[[], list[list[int]]]


def make(folder: Path, kind: str, layers: int, width: int) -> None:
    """The model as a checkpoint, as ``weft import`` and ``weft export`` make them, and as GGUF."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from weft.exchange import import_checkpoint
    from weft.exports.gguf import export_gguf
    from weft.smaller import export_smaller

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2_000, special_tokens=["<s>", "</s>"], initial_alphabet=letters,
                                  show_progress=False)  # fmt: skip
    tokenizer.train([str(Path(sysconfig.get_paths()["stdlib"]) / "argparse.py")], trainer)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=49_152, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 192, max_position_embeddings=2_048,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, initializer_range=0.04,
    )  # fmt: skip
    stored = torch.bfloat16 if kind == "bfloat16" else torch.float32
    made: Any = LlamaForCausalLM(shape)
    made.to(stored)
    made.save_pretrained(folder / "hf")
    words = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **words).save_pretrained(folder / "hf")
    import_checkpoint(str(folder / "hf"), folder / "weft")
    if find_spec("llama_cpp"):
        export_gguf(folder / "weft", folder / "gguf")
    if kind in FEW_BITS:
        (folder / "weft").rename(folder / "whole")
        export_smaller(folder / "whole", FEW_BITS[kind], folder / "weft", math.inf)


def weft(folder: Path, prompts: list[list[int]], tokens: int) -> Write:
    from weft.inference.generate import write
    from weft.inference.sampling import Sampling
    from weft.models.packed import pack
    from weft.models.pretrained import load_language_model

    model, tokenizer = load_language_model(folder / "weft")
    pack(model)
    sampling = Sampling(max_tokens=tokens)
    return lambda: [text.ids for text in write(model, tokenizer, prompts, sampling)]


def transformers(folder: Path, prompts: list[list[int]], tokens: int, cache: str | None) -> Write:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype="auto").eval()
    ids = torch.tensor(prompts)

    @torch.inference_mode()
    def write() -> list[list[int]]:
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
                               pad_token_id=0, cache_implementation=cache)  # fmt: skip
        return found[:, ids.shape[1] :].tolist()

    return write


def llama_cpp(folder: Path, kind: str, prompts: list[list[int]], tokens: int) -> Write:
    """llama.cpp through the functions of its C interface, many texts a call."""
    import llama_cpp as cpp

    quiet = cpp.llama_log_callback(lambda *_: None)
    cpp.llama_log_set(quiet, None)
    file = folder / "gguf" / "model.gguf"
    if kind in ("int8", "int4"):
        whole, file = file, file.with_name(f"{kind}.gguf")
        settings = cpp.llama_model_quantize_default_params()
        settings.ftype = {"int8": cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "int4": cpp.LLAMA_FTYPE_MOSTLY_Q4_0}[kind]
        settings.pure = True  # as in Weft, the output matrix too
        if not file.exists():
            assert cpp.llama_model_quantize(bytes(whole), bytes(file), settings) == 0
    model = cpp.llama_model_load_from_file(bytes(file), cpp.llama_model_default_params())
    count, settings = len(prompts), cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_seq_max = count * (PROMPT + tokens), count * PROMPT, count
    settings.n_threads = settings.n_threads_batch = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    settings.kv_unified = False
    context = cpp.llama_init_from_model(model, settings)
    size = cpp.llama_vocab_n_tokens(cpp.llama_model_get_vocab(model))
    batch = cpp.llama_batch_init(count * PROMPT, 0, 1)

    def read(places: list[tuple[int, int, int, bool]]) -> list[int]:
        """Tokens, their places and texts; the best next token of each text."""
        batch.n_tokens = len(places)
        for i, (token, place, text, last) in enumerate(places):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, place, 1, last
            batch.seq_id[i][0] = text
        assert cpp.llama_decode(context, batch) == 0
        found = (cpp.llama_get_logits_ith(context, i) for i, place in enumerate(places) if place[3])
        return [int(np.ctypeslib.as_array(logits, (size,)).argmax()) for logits in found]

    def write(_: object = (quiet, model)) -> list[list[int]]:  # which must live as long
        cpp.llama_memory_clear(cpp.llama_get_memory(context), True)
        asked = [(t, i, n, i == PROMPT - 1) for n, ids in enumerate(prompts) for i, t in enumerate(ids)]
        steps = [read(asked)]
        for i in range(tokens - 1):
            steps.append(read([(t, PROMPT + i, n, True) for n, t in enumerate(steps[-1])]))
        return [list(text) for text in zip(*steps, strict=True)]

    return write


def build(way: str, folder: Path, kind: str, rows: int, tokens: int) -> Write:
    prompts = np.random.default_rng(0).integers(300, 2_000, (rows, PROMPT)).tolist()
    if way == "llama.cpp":
        return llama_cpp(folder, kind, prompts, tokens)
    if way == "weft":
        return weft(folder, prompts, tokens)
    return transformers(folder, prompts, tokens, "static" if way == STATIC else None)


def begun_alike(one: list[list[int]], other: list[list[int]]) -> float:
    """The share of the tokens before the first that is not the same, mean over texts."""
    same = [np.cumprod([a == b for a, b in zip(*pair, strict=True)]).mean() for pair in zip(one, other, strict=True)]
    return round(float(np.mean(same)), 3)


def measure(folder: Path, given: argparse.Namespace, kind: str, rows: int) -> dict[str, object]:
    floats = kind in ("float32", "bfloat16")
    there = {"weft": True, "llama.cpp": find_spec("llama_cpp"), "transformers": floats, STATIC: floats}
    ways = [way for way in there if there[way]]
    writes = {way: build(way, folder, kind, rows, given.tokens) for way in ways}
    texts = {way: write() for way, write in writes.items()}
    if kind == "float32":
        assert texts["weft"] == texts["transformers"], "the tokens must be equal"

    def count(write: Write) -> Callable[[], float]:
        return lambda: float(sum(map(len, write())))

    rates = in_turn({way: count(write) for way, write in writes.items()}, given.rounds)
    options = ("--folder", str(folder), "--kinds", kind, "--batches", str(rows))
    return {
        "benchmark": "writing", "numbers": kind, "batch": rows, "layers": given.layers, "tokens": given.tokens,
        "rates": rates, "equal": {way: begun_alike(texts["weft"], texts[way]) for way in ways[1:]},
        "peak_gb": peaks(__file__, ways, *options) if given.peaks else {},
        **machine("transformers", "llama_cpp_python"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peaks", action="store_true", help="measure memory too, each way in a process of its own")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        build(given.alone, given.folder, given.kinds[0], given.batches[0], 8)()
        print(json.dumps({"peak_gb": peak_gb()}))
        return
    for kind in given.kinds:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), kind, given.layers, given.width)
            for rows in given.batches:
                print(json.dumps(measure(Path(folder), given, kind, rows)), flush=True)


if __name__ == "__main__":
    main()
