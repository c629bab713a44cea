"""How much memory and time a sharded Llama of a billion parameters takes to load and to answer.

Claim: loading a checkpoint needs little more memory than its weights; 1.2 billion in bfloat16 (2.5 GB)
load and answer within 6 GB. The model has the shape of Llama 3.2 1B and random weights. One JSON line.

    uv run python benchmarks/load_1b.py [--folder WHERE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from weft.models.checkpoints import load_hf, save_hf
from weft.models.language import Continuation, LanguageConfig, LanguageModel
from weft.models.positions import RotaryScaling
from weft.models.transformer import TransformerConfig

SHAPE = TransformerConfig(
    width=2_048, layers=16, heads=32, groups=8, ffn_width=8_192, attention="writing", norm_eps=1e-5,
    rotary_base=500_000.0, rotary_scaling=RotaryScaling("llama3", 32.0, 1.0, 4.0, 8_192), max_positions=131_072,
)  # fmt: skip
LIMIT = 6 * 10**9


def make(folder: Path) -> None:
    with torch.device("meta"):
        model = LanguageModel(LanguageConfig(SHAPE, 128_256))
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    save_hf(model, folder, shard_bytes=512 * 2**20)


def answer(folder: Path) -> dict[str, object]:
    before = peak()
    started = time.perf_counter()
    found = load_hf(folder, torch.bfloat16)
    loaded = time.perf_counter()
    after = peak()
    assert isinstance(found.model, LanguageModel)
    reading = Continuation(found.model, torch.arange(100, 116)[None])
    for _ in range(7):  # eight tokens
        reading.step(reading.logits_BV.argmax(dim=-1))
    return {
        "parameters": found.parameters,
        "shards": len(list(folder.glob("*.safetensors"))),
        "weight_bytes": sum(p.numel() * p.element_size() for p in found.model.parameters()),
        "peak_before_bytes": before,
        "peak_loaded_bytes": after,
        "peak_answered_bytes": peak(),
        "load_seconds": round(loaded - started, 2),
        "answer_8_tokens_seconds": round(time.perf_counter() - loaded, 2),
    }


def peak() -> int:
    """The most memory this process has held (VmHWM: unlike ru_maxrss, it begins anew with the program)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="an existing checkpoint to load instead of a random one")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(answer(given.folder)))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = given.folder or Path(place) / "llama"
        if given.folder is None:
            make(folder)
        command = [sys.executable, __file__, "--inside", "--folder", str(folder)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    kept = bool(found["peak_answered_bytes"] < LIMIT)
    print(
        json.dumps(
            {
                "claim": "a sharded Llama of a billion parameters loads and answers in under 6 GB in bfloat16",
                "holds": kept,
                **found,
                "limit_bytes": LIMIT,
                "threads": torch.get_num_threads(),
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "torch": torch.__version__,
                "python": platform.python_version(),
            }
        )
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
