"""Groups of texts that are written and of users and items that are recommended, beside figures made one by one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

import weft
from weft.errors import UsageError
from weft.results.audit.page import in_words, write_page

WORDS = ["ab", "cd", "ef", "gh", "ij", "kl"]


def test_what_is_written_for_each_group_has_sacrebleus_figures(tmp_path):
    random = np.random.default_rng(0)
    source = [" ".join(random.choice(WORDS, 5)) for _ in range(400)]
    table = pa.table({"s": source, "t": source, "who": random.choice(["x", "y"], 400)})
    run = weft.train(
        table, {"column": "t", "type": "text"}, tmp_path / "run", quiet=True, features={"s": "text"},
        model={"width": 32, "layers": 1}, training={"epochs": 2, "batch_rows": 16, "learning_rate": 0.005},
        results={"baselines": False},
    )  # fmt: skip
    new = table.slice(0, 260).append_column("n", pa.array(range(260)))
    found = run.audit(new, ["who"])
    section, written = found["sections"]["groups"], np.array(run.predict(new)["t"].to_pylist())
    for g in section["columns"][0]["groups"]:
        rows = np.flatnonzero(np.array(new["who"].to_pylist()) == g["group"])
        texts, right = written[rows].tolist(), [np.array(source)[rows].tolist()]
        assert g["rows"] == len(rows) and not g["small"]
        assert g["metrics"]["bleu"]["value"] == pytest.approx(BLEU().corpus_score(texts, right).score)
        assert g["metrics"]["chrf"]["value"] == pytest.approx(CHRF().corpus_score(texts, right).score)
        assert g["metrics"]["chrf"]["low"] < g["metrics"]["chrf"]["value"] < g["metrics"]["chrf"]["high"]
    assert any("chrF" in line for line in in_words(found)["groups"]) and "swaps" not in found["sections"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Men go around the first items, women around the others; and what the items are."""
    folder, random, rows = tmp_path_factory.mktemp("shop"), np.random.default_rng(0), []
    for user in range(240):
        woman, start = user % 3 == 0, random.integers(20)
        for k in range(random.integers(4, 8)):
            item = (start + k) % 20 + (20 if woman else 0) if random.random() < 0.9 else random.integers(40)
            rows.append((f"u{user}", f"i{item}", 1e9 + 60.0 * k, "f" if woman else "m"))
    user, item, when, gender = zip(*rows, strict=True)
    events = pa.table({"user": user, "item": item, "when": when, "gender": gender})
    items = {"item": [f"i{n}" for n in range(40)], "maker": ["small" if n % 4 == 0 else "large" for n in range(40)]}
    pq.write_table(pa.table(items), folder / "items.parquet")
    run = weft.train(
        events, {"column": "item", "type": "ranking", "user": "user", "time": "when"}, folder / "run", quiet=True,
        data={"items": {"source": str(folder / "items.parquet")}}, model={"width": 16, "layers": 1},
        training={"epochs": 3, "batch_rows": 32}, results={"baselines": False},
    )  # fmt: skip
    return run, events


def test_users_and_items_have_groups(shop, tmp_path):
    run, events = shop
    found = run.audit(events, ["gender", "maker"], everything=True)
    users, items = found["sections"]["groups"]["columns"]
    rows: dict[str, list] = {}
    for row in sorted(events.to_pylist(), key=lambda r: r["when"]):
        rows.setdefault(row["user"], []).append(row)
    hits: dict[str, list[bool]] = {"f": [], "m": []}
    shown, had = [], []
    for own in rows.values():
        top = [r["item"] for r in run.recommend([{"item": r["item"], "time": r["when"]} for r in own[:-1]], k=10)]
        hits[own[0]["gender"]].append(own[-1]["item"] in top)
        shown += top
        had.append(own[-1]["item"])
    assert [g["group"] for g in users["groups"]] == ["m", "f"] and users["groups"][1]["rows"] == 80
    for g in users["groups"]:
        assert g["metrics"]["hit_at_10"]["value"] == pytest.approx(np.mean(hits[g["group"]]))
    small = next(g for g in items["groups"] if g["group"] == "small")
    ours = {f"i{n}" for n in range(0, 40, 4)}
    assert small["metrics"]["exposure"]["value"] == pytest.approx(np.mean([i in ours for i in shown]))
    assert small["metrics"]["had_next"]["value"] == pytest.approx(np.mean([i in ours for i in had]))
    assert small["metrics"]["offered"]["value"] == pytest.approx(0.25) and small["rows"] == 10
    text = "\n".join(in_words(found)["groups"])
    assert "Items of 'small' have" in text and "among the first ten" in text
    assert "Recommended" in write_page(tmp_path / "a.html", found).read_text()


def test_a_run_without_groups_says_so(tmp_path):
    table = {"text": ["a b c d e f g h i j k l m n o p"] * 90, "g": ["x", "y"] * 45}
    run = weft.train({"text": table["text"]}, {"next_token": "text"}, tmp_path / "run", quiet=True,
                     model={"width": 16, "layers": 1}, training={"epochs": 1})  # fmt: skip
    with pytest.raises(UsageError, match="suite"):
        run.audit(table, ["g"])
