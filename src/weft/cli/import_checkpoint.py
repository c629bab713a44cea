"""``weft import CHECKPOINT -o RUN``"""

from __future__ import annotations

from weft.cli import Json, Out, answer
from weft.exchange import import_checkpoint as import_it


def import_checkpoint(checkpoint: str, /, *, out: Out, json: Json = False) -> None:
    """Read a Hugging Face checkpoint (BERT, GPT-2, Llama, Qwen, Mistral, ViT) into a run folder.

    Args:
        checkpoint: The folder (config.json, safetensors, tokenizer.json) or hf://OWNER/NAME on the hub.
        out: The run folder, new or empty.
    """
    found = import_it(checkpoint, out)
    lines = [
        f"found:   {found['family']}, {found['layers']} layers of width {found['width']}, {found['heads']} heads, "
        f"{found['parameters']:,} parameters ({found['stored']}); it reads {found['reads']}",
        f"         tokenizer: {found['tokenizer']} of {found['vocabulary']:,} tokens"
        if found["tokenizer"]
        else "         no tokenizer",
    ]
    if found["ignored"]:
        lines.append(f"         not needed: {', '.join(found['ignored'][:8])}")
    answer(
        json,
        found,
        [*lines, f"wrote:   {out}", f"next:    model: {{from: {out}}} in a pipeline file with a text column"],
    )
