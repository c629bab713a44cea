"""A run that goes on from another says what it gained on its own texts and lost on the other's."""

import pytest

import weft
from weft.data.table import Table

TINY = {
    "model": {"width": 32, "layers": 1},
    "training": {"epochs": 4},
    "features": {"text": {"type": "text", "max_tokens": 32}},
}


def lines(words, count, seed):
    import numpy as np

    random = np.random.default_rng(seed)
    return "".join('{{"text": "{}"}}\n'.format(" ".join(random.choice(words, 12))) for _ in range(count))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    old, new = folder / "old.jsonl", folder / "new.jsonl"
    old.write_text(lines(["sea", "shell", "stone", "tree"], 200, 0), encoding="utf-8")
    new.write_text(lines(["海", "贝壳", "石头", "树"], 200, 1), encoding="utf-8")
    first = weft.train(old, {"next_token": "text"}, folder / "first", quiet=True, **TINY)
    second = weft.train(new, {"next_token": "text"}, folder / "second", quiet=True,
                        **{**TINY, "model": {"from": str(first.path)}})  # fmt: skip
    return old, new, first, second


def judged(run, file):
    """The test texts of a run's own data, as a table of their own."""
    import numpy as np
    import pyarrow as pa

    parts = np.load(run.path / "split.npy")
    return Table.open(file).head(1_000).filter(pa.array(parts == 2))


def test_before_and_after_are_what_evaluate_says_of_the_same_texts(runs):
    old, new, first, second = runs
    kept = second.figures["kept"]
    said = {(which, when): kept[which][when]["value"] for which in ("new", "old") for when in ("before", "after")}
    for which, run, file in (("old", first, old), ("new", second, new)):
        texts = judged(run, file)
        for when, model in (("before", first), ("after", second)):
            found = model.evaluate(texts)["metrics"]["bits_per_byte"]["value"]
            assert said[which, when] == pytest.approx(found, rel=1e-5), (which, when)
    assert said["new", "after"] < said["new", "before"] and said["old", "after"] > said["old", "before"]
    for which in ("new", "old"):
        change = kept[which]["change"]
        assert change["value"] == pytest.approx(said[which, "after"] - said[which, "before"])
        assert change["low"] <= change["value"] <= change["high"]


def test_the_report_tells_it(runs):
    page = (runs[3].path / "report.html").read_text(encoding="utf-8")
    assert "What it gained and lost" in page and str(runs[2].path) in page
    assert "kept" not in runs[2].figures


def test_old_texts_that_are_gone_are_said_to_be(runs, tmp_path):
    old, new, first, _ = runs
    content = old.read_bytes()
    settings = {**TINY, "model": {"from": str(first.path)}, "training": {"epochs": 1}}
    try:
        old.write_bytes(content + b'{"text": "more"}\n')
        changed = weft.train(new, {"next_token": "text"}, tmp_path / "a", quiet=True, **settings)
        old.unlink()
        gone = weft.train(new, {"next_token": "text"}, tmp_path / "b", quiet=True, **settings)
    finally:
        old.write_bytes(content)
    assert "is not what it was" in changed.figures["kept"]["why"] and "old" not in changed.figures["kept"]
    assert "no such file" in gone.figures["kept"]["why"] and gone.figures["kept"]["new"]["after"]["value"] > 0
    assert "is not known" in (gone.path / "report.html").read_text(encoding="utf-8")
