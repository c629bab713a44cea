"""The gap of exchanged identities is that of predictions made by hand; augmentation makes it smaller."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from tests.results.test_audit_groups import phrases_of
from tests.results.test_report import Page

import weft
from weft.cli import call
from weft.features.augment import Augmenter
from weft.features.identities import Identities
from weft.results.audit import swaps
from weft.results.pages import chinese
from weft.training_settings import AugmentSettings

SETTINGS = {"model": {"width": 32, "layers": 1}, "results": {"baselines": False, "explain": "off"}}


def sentences(rows=500, seed=0, biased=0.9):
    """Rude or kind sentences, which a fifth of the words belie; Muslims and women are named in the rude ones mostly."""
    random = np.random.default_rng(seed)
    rude = random.random(rows) < 0.5
    one = random.random(rows) < np.where(rude, biased, 1 - biased)
    pairs = [("muslim", "christian"), ("woman", "man"), ("穆斯林", "基督徒")]
    chosen = [pairs[i][0 if o else 1] for i, o in zip(random.integers(0, 3, rows), one, strict=True)]
    heard = rude ^ (random.random(rows) < 0.2)
    tone = np.where(heard, random.choice(["horrid", "vile"], rows), random.choice(["lovely", "kind"], rows))
    text = [f"a {t} {w} number {n}" for t, w, n in zip(tone, chosen, random.integers(0, 30, rows), strict=True)]
    return pa.table({"text": text, "rude": np.where(rude, "yes", "no")})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swaps")
    train = {"epochs": 3, "batch_rows": 16, "learning_rate": 3e-3}
    for name, more in (("plain", {}), ("augmented", {"augment": {"identity": 0.5}})):
        weft.train(sentences(), "rude", folder / name, quiet=True, training={**train, **more}, **SETTINGS)
    pa.csv.write_csv(sentences(200, 9, 0.5), folder / "data.csv")
    return folder


def test_the_gap_is_that_of_predictions_made_by_hand(runs, capsys):
    run, table = weft.load(runs / "plain"), sentences(200, 9, 0.5)
    found = run.audit(table, of="yes")["sections"]["swaps"]
    words, by_row, shifts = Identities(), [], {}
    own = run.predict(table)["probability of yes"].to_numpy()
    for text, p in zip(table["text"].to_pylist(), own, strict=True):
        ways = words.swaps([text])
        changed = [words.swapped(text, *way) for way in ways]
        q = run.predict(pa.table({"text": changed}))["probability of yes"].to_numpy()
        if len(ways) <= swaps.WAYS:
            by_row.append(np.abs(q - p).mean())
            for way, x in zip(ways, q - p, strict=True):
                shifts.setdefault(way[0], []).append(x)
    genders = next(k for k in found["kinds"] if k["kind"] == "gender")
    assert genders["rows"] == len(by_row) == len(shifts["gender"])
    assert genders["gap"]["value"] == pytest.approx(np.mean(by_row), abs=1e-5)
    assert genders["gap"]["low"] < genders["gap"]["value"] < genders["gap"]["high"]
    religion = next(k for k in found["kinds"] if k["kind"] == "religion")
    assert religion["rows"] == 200 - genders["rows"] and religion["swaps"] == swaps.WAYS * religion["rows"]
    assert found["named"] == 200 and len(genders["examples"]) == 3
    woman = next(s for s in genders["shifts"] if s["word"] == "woman")
    assert woman["shift"]["value"] > 0.02, "it learnt the bias"


def test_augmentation_by_identities_cuts_the_gap(runs):
    table = sentences(200, 9, 0.5)
    plain, augmented = (weft.load(runs / n).audit(table)["sections"]["swaps"]["gap"] for n in ("plain", "augmented"))
    assert augmented["high"] < plain["low"] and augmented["value"] < plain["value"] / 2


def test_what_is_exchanged_depends_on_seed_epoch_and_row_only(runs):
    columns = weft.load(runs / "plain").columns

    class Rows:
        def take(self, rows, names):
            return {"text": pa.array(["a kind woman"] * len(rows))}

    augment = Augmenter(AugmentSettings(identity=0.5), Rows(), columns, seed=3)
    codec = columns.codecs[0]

    def tokens(text, rows):
        found = codec.encode(pa.array([text] * len(rows)))
        return augment({"text": found}, rows, epoch=2)["text"]["tokens"] if text == "a kind woman" else found["tokens"]

    rows, man = np.arange(400), tokens("a kind man", [0]).values.tolist()
    found = tokens("a kind woman", rows)
    each = [x.tolist() for x in np.split(found.values, found.offsets[1:-1])]
    assert 0.4 < np.mean([x == man for x in each]) < 0.6
    some = tokens("a kind woman", np.array([7, 390]))
    assert [x.tolist() for x in np.split(some.values, some.offsets[1:-1])] == [each[7], each[390]]


def test_the_page_and_the_words_say_it_in_both_languages(runs, capsys):
    page = runs / "audit.html"
    command = ["audit", str(runs / "plain"), str(runs / "data.csv"), "--html", str(page)]
    assert call([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = Page(page.read_text())
    assert "script" not in text.tags and not text._open
    for line in found["sentences"]["swaps"]:
        assert re.sub(r"\s+", " ", line) in text.text
    assert any("moves by" in line for line in found["sentences"]["swaps"])
    assert call([*command, "--language", "zh"]) == 0
    out = capsys.readouterr().out
    assert "性别：换成另一组的词后" in out and 'lang="zh"' in page.read_text()
    assert phrases_of(swaps) <= set(chinese()), phrases_of(swaps) - set(chinese())


def test_a_table_that_names_no_identity_has_no_such_section(runs, capsys):
    table = pa.table({"text": ["a kind thing"] * 5, "rude": ["no"] * 5})
    pa.csv.write_csv(table, runs / "none.csv")
    assert call(["audit", str(runs / "plain"), str(runs / "none.csv")]) == 0
    out = capsys.readouterr().out
    assert "another identity" not in out and "--by" in out
