"""Explanations of trained runs: planted cues are found, shares add up, what would change the answer does change it."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from captum.attr import IntegratedGradients
from PIL import Image

import weft
from weft.cli import call
from weft.errors import DataError, UsageError
from weft.models.row import RowModel
from weft.results.explain import gradient
from weft.results.explain.game import Games
from weft.results.explain.page import write_page
from weft.results.explain.players import in_words
from weft.results.explain.shapley import exact
from weft.results.explain.texts import word_spans
from weft.results.explain.words import sentences
from weft.runs.run import Run

FILLERS = ["the", "a", "blue", "box", "came", "on", "monday", "with", "some", "paper", "and", "two", "small", "keys"]
ZH_FILLERS = ["我们", "今天", "收到", "一个", "盒子", "里面", "还有", "两把", "钥匙", "和", "一张", "纸"]


def planted(rows: int, seed: int, chinese: bool = False) -> pa.Table:
    """The answer is yes where the text holds 'splendid' (精彩), or the colour is red, but for few rows of noise."""
    random = np.random.default_rng(seed)
    fillers, gap, cue, other = (ZH_FILLERS, "", "精彩", "糟糕") if chinese else (FILLERS, " ", "splendid", "dreadful")
    texts, colours, answers = [], [], []
    for _ in range(rows):
        words = list(random.choice(fillers, 7))
        good = random.random() < 0.5
        words[random.integers(7)] = cue if good else other
        texts.append(gap.join(words))
        colours.append(str(random.choice(["red", "green", "grey"])))
        answers.append("yes" if good else "no")
    return pa.table({"text": texts, "colour": colours, "price": random.normal(50, 9, rows), "answer": answers})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return weft.train(
        planted(900, 0), "answer", tmp_path_factory.mktemp("explain") / "run", quiet=True,
        features={"text": "text"}, training={"epochs": 3}, model={"width": 32, "layers": 1},
        results={"baselines": False, "explain": "off"},
    )  # fmt: skip


def games(run: Run, table: pa.Table, of: int | None = None) -> Games:
    clean = next(iter(run._predictor(False).clean(weft.data.table.Table.of(table))))
    return Games(run.columns, run.model, clean, of)


def test_the_planted_word_is_the_first_of_all(run: Run) -> None:
    found = run.explain(planted(100, 1))
    first = [e.players[int(np.abs(e.shares).argmax())].shown for e in found]
    assert sum(word in ("splendid", "dreadful") for word in first) >= 95


@pytest.mark.parametrize("method", ["lime", "gradient"])
def test_other_methods_find_it_too(run: Run, method: str) -> None:
    found = run.explain(planted(20, 2), method, evaluations=256)
    first = [e.players[int(np.abs(e.shares).argmax())].shown for e in found]
    assert sum(word in ("splendid", "dreadful") for word in first) >= 19


def test_shares_add_up_to_the_answer_less_the_typical_row(run: Run) -> None:
    for e in run.explain(planted(4, 3)):
        p = e.probability
        assert e.score == pytest.approx(np.log(p / (1 - p)), rel=1e-3)
        assert e.shares.sum() == pytest.approx(e.score - e.base, abs=1e-5)  # of float32
        assert sum(e.by_column().values()) == pytest.approx(e.shares.sum())
        assert e.reliable and {c.name for c in e.checks} == {"adds up", "sampling error", "same again"}


def test_the_game_is_what_the_run_predicts_of_the_row_as_written(run: Run) -> None:
    table = pa.table({"text": ["a splendid box"], "colour": ["red"], "price": [50.0]})
    game = games(run, table, of=1)
    words = [p.shown for p in game.named(0)]
    present = np.array([[w != "splendid" for w in words]])
    typical = run.columns.codecs[0].categories[0]
    changed = pa.table({"text": ["a box"], "colour": ["red"], "price": [50.0]})
    p = run.predict(changed)["probability of yes"][0].as_py()
    assert game.game(0)(present)[0] == pytest.approx(np.log(p / (1 - p)), abs=1e-4)
    median = next(c.median for c in run.columns.codecs if c.name == "price")
    nothing = pa.table({"text": pa.array([None], pa.string()), "colour": [typical], "price": [median]})
    p = run.predict(nothing)["probability of yes"][0].as_py()
    assert game.empty[0] == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


def test_cells_are_shown_as_a_person_writes_them(run: Run) -> None:
    price = next(c for c in run.columns.codecs if c.name == "price")
    assert [in_words(price, v) for v in (13800137687.0, 0.823, None)] == ["13800137687", "0.823", "(missing)"]


def test_the_other_class_has_the_opposite_shares(run: Run) -> None:
    table = planted(3, 4)
    for yes, no in zip(run.explain(table, of="yes"), run.explain(table, of="no"), strict=True):
        assert np.allclose(yes.shares, -no.shares, atol=1e-4)


def test_a_model_of_random_weights_says_nothing_of_the_trained_one(run: Run, tmp_path: Path) -> None:
    """Adebayo 2018: an explanation that does not depend on what was learnt is none."""
    table = planted(30, 5)
    trained = games(run, table, of=1)
    model = weft.load(run.path).model
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    blank = Games(run.columns, model, next(iter(run._predictor(False).clean(weft.data.table.Table.of(table)))), 1)
    alike = []
    for row in range(30):
        players = len(trained.named(row))
        one, other = (exact(g.game(row), players).values for g in (trained, blank))
        ranks = [np.argsort(np.argsort(np.abs(v))) for v in (one, other)]
        alike.append(np.corrcoef(*ranks)[0, 1])
    assert abs(np.mean(alike)) < 0.3


def test_gradients_equal_captum_and_account_for_the_answer(run: Run) -> None:
    game = games(run, planted(3, 6))
    for row in range(3):
        _, gap = gradient.integrated_gradients(game, row)
        assert gap <= gradient.CLOSED
        here, there = gradient._batches(game, row)
        copy = game.model.each()[0]
        copy.linear, kept = None, copy.linear  # captum's part is what goes through the tokens
        try:
            ours = gradient._integrate(game, row, 64)[0]
            theirs = captum(game, row, copy, here.columns, there.columns)
        finally:
            copy.linear = kept
        assert np.allclose(ours, theirs, atol=1e-4)


def captum(game: Games, row: int, copy: RowModel, here: dict, there: dict) -> np.ndarray:
    """Shares by captum, of the vectors of the words and the tokens of the other columns."""
    text = copy.embedding.by_type["text"]
    ends = [text.vectors(text.ids(columns)).detach() for columns in (here, there)]
    x, start = (copy.embedding(columns).states_BTD.detach() for columns in (here, there))
    is_text = torch.isin(copy.embedding(here).columns_BT[:1], torch.tensor([copy.embedding.number["text"]])).unsqueeze(
        -1
    )

    def forward(vectors: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        many = {c: {n: t.expand(len(vectors), *t.shape[1:]) for n, t in f.items()} for c, f in here.items()}
        tokens = copy.embedding(many, vectors)
        tokens.states_BTD = torch.where(is_text, tokens.states_BTD, states)
        return gradient._score(game, row, copy.head.answer(copy.head(copy.read(tokens)))[None])

    words, others = IntegratedGradients(forward).attribute(
        (ends[0], x), (ends[1], torch.where(is_text, x, start)), n_steps=64, method="gausslegendre"
    )
    players = game.named(row)
    found = np.zeros(len(players))
    places = [i for i, p in enumerate(players) if p.start is not None]
    spoken = words[0].sum(dim=-1).detach().numpy()
    assert len(spoken) == len(places)  # every filler is one token
    found[places] = spoken
    columns = copy.embedding(here).columns_BT[0].tolist()
    for place, player in enumerate(players):
        if player.start is None:
            at = columns.index(copy.embedding.number[player.column])
            found[place] = others[0, at].sum().item()
    return found


def test_attention_is_shares_of_looks(run: Run) -> None:
    for e in run.explain(planted(3, 7), "attention"):
        assert e.shares.min() >= 0 and e.shares.sum() == pytest.approx(1)
        assert "where it looked is not why it decided" in sentences(e)[0]


def test_the_smallest_change_flips_the_answer(run: Run) -> None:
    table = planted(20, 8)
    found = run.explain(table)
    flips = 0
    for row, e in zip(table.to_pylist(), found, strict=True):
        if e.change is None:
            continue
        flips += 1
        gone = [change.word for change in e.change.changes if change.to is None]
        row["text"] = " ".join(w for i, w in enumerate(row["text"].split()) if i not in gone)
        row |= {change.column: change.value for change in e.change.changes if change.to is not None}
        said = run.predict(pa.Table.from_pylist([row]))["prediction"][0].as_py()
        assert said == e.change_to != e.answer
    assert flips >= 5


def test_sentences_name_the_word_in_both_languages(run: Run) -> None:
    e = run.explain(pa.table({"text": ["the splendid box"], "colour": ["grey"], "price": [50.0]}))[0]
    english, chinese = sentences(e)[0], sentences(e, "zh")[0]
    assert english.startswith("It said 'yes' (") and "because of 'splendid'" in english
    assert chinese.startswith("模型判断为“yes”") and "主要依据是“splendid”" in chinese


def test_a_failed_check_is_said(run: Run) -> None:
    e = run.explain(planted(1, 9))[0]
    e.checks = [type(e.checks[0])("same again", 0.1, 0.7, False)]
    assert not e.reliable and sentences(e)[-1].startswith("Take this with caution: a second try")
    assert sentences(e, "zh")[-1].startswith("请谨慎看待")


def test_chinese_words_are_found(tmp_path: Path) -> None:
    run = weft.train(
        planted(2_000, 0, chinese=True), "answer", tmp_path / "zh", quiet=True, features={"text": "text"},
        training={"epochs": 8}, model={"width": 32, "layers": 1}, results={"baselines": False, "explain": "off"},
    )  # fmt: skip
    codec = next(c for c in run.columns.codecs if c.name == "text")
    text = "我们收到精彩 box 2 个"
    words = [text[a:b] for a, b in word_spans(text, codec.tokenizer)]
    assert "".join(words) == text.replace(" ", "") and "box" in words and "2" in words
    found = run.explain(planted(20, 1, chinese=True))
    first = [e.players[int(np.abs(e.shares).argmax())].shown for e in found]
    assert sum(any(part in word for part in "精彩糟糕") for word in first) >= 19


def test_a_number_is_explained_in_its_unit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 800))
    table = pa.table({"x": x, "y": y, "z": 3 * x + 0.1 * y})
    run = weft.train(
        table, "z", tmp_path / "run", quiet=True, results={"baselines": False, "explain": "off"}, model={"copies": 1},
        training={"epochs": 8},
    )  # fmt: skip
    e = run.explain(pa.table({"x": [1.0], "y": [1.0]}))[0]
    share = dict(zip((p.column for p in e.players), e.shares, strict=True))
    assert share["x"] == pytest.approx(3 * (1 - np.median(x)), abs=0.5) and abs(share["y"]) < 0.4
    assert e.change is None and e.of is None and "where a typical row gets" in sentences(e)[0]


def test_wrong_use_is_told(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="Did you mean 'shap'"):
        run.explain(planted(1, 0), "shapp")
    with pytest.raises(UsageError, match="must be an answer of the run"):
        run.explain(planted(1, 0), of="maybe")
    with pytest.raises(DataError, match="row 0, column 'price': must be a number"):
        run.explain(pa.table({"text": ["a"], "colour": ["red"], "price": ["cheap"]}))
    file = tmp_path / "rows.csv"
    file.write_text("text,colour,price\nthe splendid box,red,50\n")
    assert call(["explain", str(run.path), str(file), "--row", "3"]) == 1
    assert "there is no row 3. It has 1 rows" in capsys.readouterr().err
    assert call(["explain", str(run.path), str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["explanations"][0]
    assert told["answer"] == "yes" and told["reliable"] and "splendid" in told["sentences"][0]
    assert call(["explain", str(run.path), str(file)]) == 0
    assert "splendid" in capsys.readouterr().out


def test_a_recurrent_network_has_no_attention_and_the_rest(tmp_path: Path) -> None:
    run = weft.train(
        planted(300, 0), "answer", tmp_path / "rnn", quiet=True, features={"text": "text"},
        model={"backbone": "rnn", "width": 32}, training={"epochs": 2}, results={"baselines": False, "explain": "off"},
    )  # fmt: skip
    with pytest.raises(UsageError, match="recurrent"):
        run.explain(planted(1, 1), "attention")
    for method in ("shap", "gradient"):
        assert run.explain(planted(2, 1), method)[0].reliable


def test_the_patch_and_the_event_that_tell_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    rows = 700
    pixels = random.integers(0, 90, (rows, 14, 14)).astype(np.uint8)
    bright = random.random(rows) < 0.5
    pixels[bright, 2:4, 10:12] = 250  # patch 2, 6 of 7 x 7
    had = [[f"i{k}" for k in random.integers(0, 30, 6)] for _ in range(rows)]
    bought = random.random(rows) < 0.5
    for row in np.flatnonzero(bought):
        had[row][int(random.integers(6))] = "gold"
    table = pa.table({
        "photo": pa.array([p.tolist() for p in pixels], pa.list_(pa.list_(pa.uint8()))), "had": had,
        "bright": np.where(bright, "yes", "no"), "gold": np.where(bought, "yes", "no"),
    })  # fmt: skip
    for target, column, telling in (("bright", "photo", "patch 2, 6"), ("gold", "had", "gold")):
        run = weft.train(
            table.select([column, target]), target, tmp_path / target, quiet=True,
            features={column: "image" if column == "photo" else "sequence"}, training={"epochs": 12},
            model={"width": 32, "layers": 1}, results={"baselines": False, "explain": "off"},
        )  # fmt: skip
        asked = table.select([column]).filter(pa.array(bright if target == "bright" else bought))
        for method, rows in (("shap", 100), ("gradient", 20)):
            found = run.explain(asked.slice(0, rows), method, evaluations=256)
            first = [e.players[int(np.argmax(e.shares * (1 if e.answer == "yes" else -1)))].shown for e in found]
            assert first.count(telling) >= 0.95 * rows, (target, method, first)
            assert sum(e.reliable for e in found) >= 0.8 * rows
        if column == "photo":
            page = write_page(tmp_path / "why.html", found[:2], "run", "table").read_text()
            marks = re.findall(r'<rect class="patch (\w+)" x="(\d+)" y="(\d+)"[^>]*--strength:1.00', page)
            assert len(marks) == 2 and {m[1:] for m in marks} == {(str(5 * 28 + 2), str(28 + 2))}  # patch 2, 6
            picture = Image.open(io.BytesIO(base64.b64decode(found[0].pictures["photo"].split(",")[1])))
            assert np.array_equal(np.asarray(picture), np.array(asked["photo"][0].as_py(), np.uint8))
            pq.write_table(asked.slice(0, 1), tmp_path / "rows.parquet")
            assert call(["explain", str(run.path), str(tmp_path / "rows.parquet"), "--method", "gradient"]) == 0
            grid = capsys.readouterr().out.split("photo, patch by patch:\n")[1].splitlines()[:7]
            assert grid[1].split()[5] in ("++", "--") and sum(line.count("++") for line in grid) <= 2
