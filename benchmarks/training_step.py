"""What Weft's own attention and dropout on a CPU save of a training step, beside PyTorch's fused kernel and dropout.

    uv run python benchmarks/training_step.py

One JSON line a shape: CPU milliseconds of forward and backward pass in bfloat16 on one thread, median of 7, both ways
in turn.
"""

from __future__ import annotations

import json
import statistics
import time

import torch
import torch.nn.functional as F

from weft.models import attention, transformer
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig

SHAPES = {
    "writer, 6 layers of width 192, 16 x 256 tokens": (
        TransformerConfig(192, 6, 3, attention="writing", dropout=0.1), 16, 256,
    ),
    "MiniLM's shape, 32 x 32 tokens": (
        TransformerConfig(384, 6, 12, norm="layer", norm_at="after", positions="learned", max_positions=512,
                          feed_forward="gelu", biases="all", dropout=0.1), 32, 32,
    ),
    "MiniLM's shape, 32 x 128 tokens": (
        TransformerConfig(384, 6, 12, norm="layer", norm_at="after", positions="learned", max_positions=512,
                          feed_forward="gelu", biases="all", dropout=0.1), 32, 128,
    ),
}  # fmt: skip


def step(model: LanguageModel, ids: torch.Tensor, mask: torch.Tensor | None) -> float:
    """CPU milliseconds of one forward and backward pass."""
    model.zero_grad()
    started = time.process_time()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.hidden(ids, mask).float().square().mean()
    loss.backward()
    return 1000 * (time.process_time() - started)


def main() -> None:
    torch.set_num_threads(1)
    own = attention.trains_here, transformer.dropout
    plain = (lambda _: False), (lambda x, share, training: F.dropout(x, share, training))
    for name, (shape, rows, length) in SHAPES.items():
        torch.manual_seed(0)
        model = LanguageModel(LanguageConfig(shape, 1_000)).train()
        ids = torch.randint(0, 1_000, (rows, length))
        mask = None
        if shape.attention == "reading":
            mask = torch.rand(rows, length) > 0.2
            mask[:, 0] = True
        times: dict[str, list[float]] = {"weft": [], "torch": []}
        for turn in range(9):
            for way, (trains_here, dropout) in (("weft", own), ("torch", plain)):
                attention.trains_here, transformer.dropout = trains_here, dropout
                spent = step(model, ids, mask)
                if turn > 1:
                    times[way].append(spent)
        weft, torch_ = (statistics.median(times[way]) for way in ("weft", "torch"))
        print(json.dumps({
            "benchmark": "training_step", "shape": name, "weft_ms": round(weft), "torch_ms": round(torch_),
            "ratio": round(weft / torch_, 2), "threads": 1, "torch": torch.__version__,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
