"""Explanations of what is no column of a row: texts word by word, recommendations, answers, nearness of two texts."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from tests.writers import byte_level, original, untrained

import weft
from weft.cli import call
from weft.errors import DataError, UsageError
from weft.features.catalogue import Catalogue
from weft.results.explain.asked import AT_ONCE, why, words_of
from weft.results.explain.page import write_page
from weft.results.explain.texts import Words
from weft.results.explain.words import sentences
from weft.results.explain.writing import log_probabilities
from weft.runs.answers import AnswerRun
from weft.runs.language import prompt_source
from weft.runs.pairs import PairRun
from weft.runs.ranking import RankingRun
from weft.runs.texts import TextRun

FILLERS = ["box", "came", "monday", "some", "paper", "keys", "lamp", "wind"]
COLOURS = {"red": "rouge", "blue": "bleu", "green": "vert"}


def brute_force(value, groups: list[int]) -> np.ndarray:
    """What a player adds, over all orders in which the players of a group stand together [P, O] (Owen 1977)."""
    players, orders, total = len(groups), 0, 0.0
    for order in itertools.permutations(range(players)):
        row = [groups[i] for i in order]
        if len([k for k, _ in itertools.groupby(row)]) > len(set(row)):
            continue
        present = np.zeros((players + 1, players), bool)
        for place, player in enumerate(order):
            present[place + 1 :, player] = True
        added = np.zeros((players, value(present).shape[1]))
        added[list(order)] = np.diff(value(present), axis=0)
        orders, total = orders + 1, total + added
    return total / orders


def shares_of(found) -> np.ndarray:
    shares = found.shares
    return shares if shares.ndim == 2 else shares[:, None]


def ranks_alike(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(np.abs(v))) for v in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def scrambled(model: torch.nn.Module, std: float = 0.3) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std)


# ---- texts that a model wrote


def translated(rows: int, seed: int, without: float = 0.0) -> pa.Table:
    """One word of the target is told by a colour somewhere in the source, the others never change."""
    random = np.random.default_rng(seed)
    source, target = [], []
    for _ in range(rows):
        words, colour = list(random.choice(FILLERS, random.integers(1, 6))), str(random.choice(list(COLOURS)))
        if random.random() < without:
            colour = str(random.choice(FILLERS))
        words[random.integers(len(words))] = colour
        source.append(" ".join(words))
        target.append(f"le mot est {COLOURS.get(colour, 'rien')} ici")
    return pa.table({"s": source, "t": target})


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> TextRun:
    return weft.train(
        translated(500, 0, 0.4), {"column": "t", "type": "text"}, tmp_path_factory.mktemp("w") / "run", quiet=True,
        features={"s": "text"}, model={"width": 32, "layers": 1, "dropout": 0.0},
        training={"epochs": 14, "batch_rows": 32, "precision": "float32", "learning_rate": 0.01},
    )  # fmt: skip


def word(found, shown: str) -> int:
    return [w.shown for w in found.words].index(shown)


def first(found, shown: str) -> str:
    return found.players[int(np.abs(found.shares[:, word(found, shown)]).argmax())].shown


@pytest.mark.parametrize(("method", "rows"), [("shap", 100), ("lime", 40), ("gradient", 20)])
def test_the_word_that_a_word_was_written_for_is_the_first(writer: TextRun, method: str, rows: int) -> None:
    table = translated(rows, 1)
    hits = 0
    for row, found in zip(table.to_pylist(), writer.explain(table, method, evaluations=256), strict=True):
        french = row["t"].split()[3]
        assert found.text.strip() == row["t"] and found.reliable == all(c.passed for c in found.checks)
        hits += COLOURS.get(first(found, french)) == french
    assert hits >= 0.95 * rows


def test_the_sentence_names_it_and_says_what_the_source_did_not_decide(writer: TextRun) -> None:
    found = writer.explain(prompt="some red paper")[0]
    english, chinese = sentences(found), sentences(found, "zh")
    assert any(line.startswith("It wrote 'rouge' (") and line.endswith("because of 'red'.") for line in english)
    assert any(line.startswith("模型写出“rouge”") and "主要依据是“red”" in line for line in chinese)
    assert "'le', 'mot', 'est' and 'ici' followed from what was written before" in english[-1]
    found.shares[:] = 0.0
    assert not any("It wrote" in line for line in sentences(found))


def test_words_written_are_scored_as_the_model_itself_scores_them(writer: TextRun) -> None:
    """The log probability of the text is what the run's own loss says of it, and shares add up to it."""
    table = pa.table({"s": ["wind blue keys"], "t": ["le mot est bleu ici"]})
    found = writer.explain(table)[0]
    model, tokenizer = writer.loaded
    source = writer.pairing.encode({"s": table["s"].chunk(0)}, tokenizer)[0][0]
    target = tokenizer.encode("le mot est bleu ici", add_special_tokens=False).ids
    ids = torch.tensor([[*source, *target]])
    prefix = torch.arange(ids.shape[1])[None] < len(source)
    asked = torch.where(prefix, -100, ids)[:, 1:]
    loss = F.cross_entropy(model.eval()(ids, prefix_BT=prefix)[0, :-1], asked[0], ignore_index=-100, reduction="sum")
    assert found.score.sum() == pytest.approx(-loss.item(), abs=1e-4)
    assert np.allclose(found.shares.sum(axis=0), found.score - found.base, atol=1e-5)  # of float32
    given = writer.explain(table, of="le mot est vert ici")[0]
    assert given.score[word(given, "vert")] < found.score[word(found, "bleu")] - 1


def test_shares_of_a_text_equal_brute_force(writer: TextRun) -> None:
    source = writer._question("keys red monday lamp", None)
    found = why(source, 0, "shap", 512, 0)
    assert np.allclose(found.shares, brute_force(source.ask, [0] * 4), atol=1e-6)


def test_a_model_of_random_weights_says_nothing_of_the_trained_one(writer: TextRun) -> None:
    table = pa.Table.from_pylist([row for row in translated(60, 3).to_pylist() if len(row["s"].split()) > 3])
    trained = writer.explain(table)
    blank = weft.load(writer.path)
    scrambled(blank.loaded[0])
    alike = []
    for row, one in zip(table.to_pylist(), trained, strict=True):
        other = blank.explain(pa.Table.from_pylist([row]), of=one.text)[0]
        place = word(one, row["t"].split()[3])
        alike.append(ranks_alike(one.shares[:, place], other.shares[:, place]))
    assert abs(np.mean(alike)) < 0.3


def test_many_words_are_players_in_groups_and_the_estimate_is_near_the_exact_values(writer: TextRun) -> None:
    long = " ".join(["wind", "keys", "lamp"] * 50)
    tokenizer = writer.loaded[1]
    words = words_of({"s": f"{long} red"}, tokenizer)
    assert len(words[0].players) <= 64 and words[0].players[-1].end == len(long) + 4
    source = writer._question("box came monday some paper keys lamp wind red box came monday some", None)
    exact = brute_force_by_sets(source)
    found = why(source, 0, "shap", 1_024, 0)
    assert len(source.players) == 13 and found.errors.max() > 0  # too many for all sets
    assert np.abs(found.shares - exact).max() <= 0.1 * np.abs(exact).max()


def brute_force_by_sets(question) -> np.ndarray:
    """Shapley's sum over all sets, as it is written."""
    players = len(question.players)
    present = (np.arange(2**players)[:, None] >> np.arange(players)) & 1 == 1
    worth = np.concatenate([question.ask(p) for p in np.split(present, range(AT_ONCE, len(present), AT_ONCE))])
    size = present.sum(axis=1)
    factorial = np.cumprod([1.0, *range(1, players + 1)])
    found = []
    for i in range(players):
        out = np.flatnonzero(~present[:, i])
        weight = factorial[size[out]] * factorial[players - size[out] - 1] / factorial[players]
        found.append(weight @ (worth[out | 1 << i] - worth[out]))
    return np.array(found)


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_a_beginning_that_all_share_is_read_once_and_changes_nothing(kind: str) -> None:
    model = untrained(kind)
    sources = [[0, 5, 9, 7], [0, 5, 9, 7, 8, 11, 12], [0, 5, 9, 3], [0, 5, 9, 7]]
    found = log_probabilities(model, sources, [20, 21, 22])
    for source, told in zip(sources, found, strict=True):
        logits = model(torch.tensor([[*source, 20, 21]]))[0, len(source) - 1 :].log_softmax(-1)
        assert np.allclose(told, logits[range(3), [20, 21, 22]].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_gradients_equal_captum_and_account_for_the_words(kind: str) -> None:
    model, tokenizer = untrained(kind), byte_level()
    source = prompt_source(model, tokenizer, "the cat sat", " on the mat", "text")
    found = source.integrate(32)
    values, ends = found[:-2], found[-2:]
    assert np.allclose(ends[1], source.ask(np.ones((1, 3), bool))[0], atol=1e-4)
    ids = torch.tensor([[*source.context, *source.ids[:-1]]])
    there = model.table(ids).detach()
    mine = torch.zeros(ids.shape[1], 1)
    mine[: len(source.owners), 0] = torch.tensor(source.owners >= 0)
    start = there + mine * (model.table.weight.mean(dim=0).detach() - there)

    def forward(states: torch.Tensor, of: int) -> torch.Tensor:
        tokens = model.tokens(ids.expand(len(states), -1))
        tokens.states_BTD = states
        logs = model.logits(model.backbone(tokens))[:, -len(source.ids) :].log_softmax(-1)
        said = logs.gather(2, torch.tensor(source.ids).expand(len(states), -1)[:, :, None])[..., 0]
        return said[:, source.word_of == of].sum(dim=1)

    with torch.backends.cudnn.flags(enabled=False):
        for place in range(len(source.words)):
            theirs = IntegratedGradients(lambda x, of=place: forward(x, of)).attribute(
                there, start, n_steps=32, method="gausslegendre"
            )
            by_token = theirs[0].sum(dim=-1).numpy()[: len(source.owners)]
            told = [by_token[source.owners == player].sum() for player in range(3)]
            assert np.allclose(values[:, place], told, atol=1e-3 * max(1, np.abs(told).max()))


def test_an_imported_checkpoint_says_why_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_level()
    original("gpt2").save_pretrained(tmp_path / "hf")
    tokenizer.save(str(tmp_path / "hf" / "tokenizer.json"))
    assert call(["import", str(tmp_path / "hf"), "-o", str(tmp_path / "gpt2")]) == 0
    capsys.readouterr()
    assert call(["explain", str(tmp_path / "gpt2"), "--prompt", "The cat sat on", "--of", " the mat", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["explanations"][0]
    assert [w["shown"] for w in told["words"]] == ["the", "mat"] and len(told["players"]) == 4
    theirs = original("gpt2")
    before, after = tokenizer.encode("The cat sat on").ids, tokenizer.encode(" the mat").ids
    logs = theirs(torch.tensor([before + after])).logits[0, len(before) - 1 : -1].log_softmax(-1)
    assert sum(w["score"] for w in told["words"]) == pytest.approx(
        logs[range(len(after)), after].sum().item(), abs=1e-4
    )
    rows = tmp_path / "rows.csv"
    rows.write_text("n,text\n1,She sells sea shells on the\n2,The dog sat on it\n")
    assert call(["explain", str(tmp_path / "gpt2"), str(rows), "--row", "1", "--column", "text", "--of", " mat"]) == 0
    assert "The dog sat on it" in capsys.readouterr().out
    assert call(["explain", str(tmp_path / "gpt2"), "--prompt", "The", "--method", "attention"]) == 2
    assert "must be 'shap', 'lime', 'gradient'" in capsys.readouterr().err


def test_a_run_that_fills_in_hidden_words_is_not_explained(tmp_path: Path) -> None:
    run = weft.train(
        pa.table({"text": [" ".join(FILLERS)] * 200}), {"masked_token": "text"}, tmp_path / "run", quiet=True,
        model={"width": 16, "layers": 1}, training={"epochs": 1},
    )  # fmt: skip
    with pytest.raises(UsageError, match="must be a run that writes, to be explained"):
        run.explain(prompt="some wind")


def test_an_answer_in_a_dialogue_is_explained_by_what_was_said(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cells = []
    for _ in range(300):
        words, colour = list(random.choice(FILLERS, 3)), str(random.choice(list(COLOURS)))
        words[random.integers(3)] = colour
        turns = [("user", " ".join(words)), ("assistant", f"c'est {COLOURS[colour]}")]
        cells.append(json.dumps([{"role": r, "content": c} for r, c in turns]))
    run = weft.train(
        pa.table({"talk": cells}), {"column": "talk", "type": "dialogue"}, tmp_path / "run", quiet=True,
        model={"width": 32, "layers": 2, "dropout": 0.0}, training={"epochs": 14, "learning_rate": 0.01},
    )  # fmt: skip
    asked = pa.table({"talk": cells[:20]})
    hits = 0
    for cell, found in zip(cells, run.explain(asked), strict=False):
        french = json.loads(cell)[1]["content"].split()[1]
        assert found.target == "assistant" and found.text == f"c'est {french}"
        assert {p.column for p in found.players} == {"user 1"}
        hits += COLOURS.get(first(found, french)) == french
    assert hits >= 19
    assert run.explain(prompt="some blue keys", of="c'est bleu")[0].text == "c'est bleu"
    with pytest.raises(UsageError, match="chat template does not tell"):
        run.explain(asked, "gradient")


# ---- recommendations


def shop(rows: int, seed: int) -> pa.Table:
    """After gold k comes thing k, and what else was had tells nothing; an item a row of events."""
    random = np.random.default_rng(seed)
    had = []
    for _ in range(rows):
        kinds = random.integers(0, 6, 4)
        had.append([i for k in kinds for i in (f"f{random.integers(8)}", f"gold{k}", f"thing{k}")])
    return pa.table({"had": had})


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> RankingRun:
    return weft.train(
        shop(300, 0), {"column": "had", "type": "ranking"}, tmp_path_factory.mktemp("shop") / "run", quiet=True,
        model={"width": 32, "layers": 1, "dropout": 0.0},
        training={"epochs": 15, "learning_rate": 5e-3, "batch_rows": 32},
    )  # fmt: skip


def asked_of_shop(rows: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table({"had": [
        [*(f"f{i}" for i in random.integers(0, 8, 4)), f"gold{random.integers(6)}"] for _ in range(rows)
    ]})  # fmt: skip


def test_the_past_item_that_a_recommendation_is_made_for_is_the_first(ranker: RankingRun) -> None:
    table = asked_of_shop(100, 1)
    found = ranker.explain(table)
    gold = [row[-1] for row in table["had"].to_pylist()]
    first = [e.players[int(np.abs(e.shares).argmax())].shown for e in found]
    assert np.mean([e.answer == g.replace("gold", "thing") for e, g in zip(found, gold, strict=True)]) >= 0.95
    assert sum(one == other for one, other in zip(first, gold, strict=True)) >= 95
    lime = ranker.explain(table.slice(0, 20), "lime", evaluations=128)
    assert sum(e.players[int(np.abs(e.shares).argmax())].shown == g for e, g in zip(lime, gold, strict=False)) >= 19


def test_a_recommendation_is_scored_as_the_run_scores_it_and_equals_brute_force(ranker: RankingRun) -> None:
    table = pa.table({"had": [["f1", "f2", "gold3"], []]})
    found, nothing = ranker.explain(table)
    best = ranker.recommend(["f1", "f2", "gold3"], 1)[0]
    assert found.of == best["item"] and found.probability == pytest.approx(best["score"], rel=1e-4)
    question = next(ranker._questions(weft.data.table.Table.of(table), None, False))[1]
    assert np.allclose(shares_of(found), brute_force(question.ask, [0] * 3), atol=1e-5)
    assert not nothing.players and nothing.score == nothing.base
    shorter = ranker.recommend(["f2", "gold3"], 30)  # without the first event
    share = next(r["score"] for r in shorter if r["item"] == found.of)
    assert question.ask(np.array([[False, True, True]]))[0, 0] == pytest.approx(np.log(share / (1 - share)), abs=1e-4)
    other = ranker.explain(table.slice(0, 1), of="f1")[0]
    assert other.of == "f1" and other.probability < found.probability
    with pytest.raises(UsageError, match="must be an item of the catalogue"):
        ranker.explain(table, of="f99")
    with pytest.raises(UsageError, match="must be 'shap'"):
        ranker.explain(table, "gradient")
    with pytest.raises(UsageError, match="for a run that writes"):
        ranker.explain(prompt="f1")


def test_sentences_of_a_recommendation(ranker: RankingRun) -> None:
    found = ranker.explain(pa.table({"had": [["f1", "f2", "gold3"]]}))[0]
    assert sentences(found)[0].startswith("It recommended 'thing3' (") and "because of 'gold3'" in sentences(found)[0]
    assert sentences(found, "zh")[0].startswith("模型推荐“thing3”") and "主要依据是“gold3”" in sentences(found, "zh")[0]


def test_random_weights_recommend_for_other_reasons(ranker: RankingRun) -> None:
    table = asked_of_shop(40, 2)
    trained = ranker.explain(table)
    blank = weft.load(ranker.path)
    catalogue = Catalogue.load(blank.path)
    scrambled(blank._ranker.model)
    blank._ranker.vectors, blank._ranker.bias = blank._ranker.model.all_items(None, len(catalogue))
    alike = []
    for row, one in zip(table.to_pylist(), trained, strict=True):
        other = blank.explain(pa.table({"had": [row["had"]]}), of=one.of)[0]
        alike.append(ranks_alike(one.shares, other.shares))
    assert abs(np.mean(alike)) < 0.3


def test_what_is_known_of_the_item_is_a_reason_too(tmp_path: Path) -> None:
    """Items of a kind follow one another, so a new item is recommended for its kind."""
    random = np.random.default_rng(0)
    items = pa.table({"id": [f"i{k}" for k in range(40)], "kind": [f"k{k % 4}" for k in range(40)],
                      "noise": random.normal(size=40)})  # fmt: skip
    rows = [[f"i{4 * random.integers(9) + kind}" for _ in range(6)] for kind in random.integers(0, 4, 400)]
    pq.write_table(items, tmp_path / "items.parquet")
    pq.write_table(pa.table({"had": rows}), tmp_path / "had.parquet")
    run = weft.train(
        str(tmp_path / "had.parquet"), {"column": "had", "type": "ranking", "taken": True}, tmp_path / "run",
        quiet=True, data={"items": {"source": str(tmp_path / "items.parquet"), "id": "id",
                                    "features": {"kind": "category", "noise": "number"}}},
        model={"width": 32, "layers": 1, "dropout": 0.0},
        training={"epochs": 15, "learning_rate": 5e-3, "batch_rows": 32},
    )  # fmt: skip
    asked = pa.table({"had": [[f"i{4 * k + 1}" for k in range(5)]]})
    found = run.explain(asked, of="i37")[0]  # in no training event
    share = found.by_column()
    assert share["kind"] > 1 and share["had"] > 1 and abs(share["noise"]) < 0.5 * share["kind"]
    assert "kind k1" in sentences(found)[0]
    question = next(run._questions(weft.data.table.Table.of(asked), "i37", False))[1]
    expected = brute_force(question.ask, [0] * 5 + [1, 2])
    assert np.allclose(shares_of(found), expected, atol=1e-4)


# ---- answers found in a text


def hidden(rows: int, seed: int) -> pa.Table:
    """The answer is the word after 'secret', whichever it is."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        words, place = list(random.choice(FILLERS, 7)), int(random.integers(6))
        words[place] = "secret"
        start = len(" ".join(words[: place + 1])) + 1
        found.append({"question": "which", "context": " ".join(words), "answer": words[place + 1], "at": start})
    return pa.Table.from_pylist(found)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> AnswerRun:
    return weft.train(
        hidden(500, 0), {"column": "answer", "type": "span", "start": "at"}, tmp_path_factory.mktemp("a") / "run",
        quiet=True, features={"question": "text", "context": "text"}, model={"width": 48, "layers": 2},
        training={"epochs": 24, "learning_rate": 5e-3, "batch_rows": 32},
    )  # fmt: skip


def test_the_word_that_gave_the_answer_away_is_the_first(answerer: AnswerRun) -> None:
    table = hidden(100, 1)
    found = answerer.explain(table)
    assert np.mean([e.answer == a for e, a in zip(found, table["answer"].to_pylist(), strict=True)]) >= 0.95
    assert sum(e.players[int(np.abs(e.shares).argmax())].shown == "secret" for e in found) >= 95
    assert sentences(found[0])[0].startswith(f"It answered '{found[0].answer}' (")
    assert "mostly because of 'secret'" in sentences(found[0])[0] and "“secret”" in sentences(found[0], "zh")[0]


def test_an_answer_is_scored_as_the_run_scores_it_and_equals_brute_force(answerer: AnswerRun) -> None:
    table = pa.table({"question": ["which"], "context": ["lamp secret keys wind"]})
    found = answerer.explain(table)[0]
    told = answerer.answer("which", "lamp secret keys wind")
    assert found.answer == told["prediction"] == "keys"
    assert found.probability == pytest.approx(told["probability"], rel=1e-4)
    assert [p.shown for p in found.players] == ["which", "lamp", "secret", "wind"]  # the answer itself stays
    question = next(answerer._questions(weft.data.table.Table.of(table), None, False))[1]
    assert np.allclose(shares_of(found), brute_force(question.ask, [0, 1, 1, 1]), atol=1e-5)
    without = answerer.answer("which", "secret keys wind")
    odds = np.log(without["probability"] / (1 - without["probability"]))
    assert question.ask(np.array([[True, False, True, True]]))[0, 0] == pytest.approx(odds, abs=1e-3)
    other = answerer.explain(table, of="wind")[0]
    assert other.answer == "wind" and other.probability < 0.5
    nothing = answerer.explain(table, of="")[0]
    assert nothing.answer == "" and sentences(nothing)[0].startswith("It found no answer")
    assert [p.shown for p in nothing.players] == ["which", "lamp", "secret", "keys", "wind"]
    with pytest.raises(UsageError, match="must be in the context"):
        answerer.explain(table, of="Keys")
    with pytest.raises(DataError, match="row 0, column 'context': must hold text"):
        answerer.explain(pa.table({"question": ["which"], "context": pa.array([None], pa.string())}))


def test_few_questions_for_many_words_of_two_texts_are_said_not_to_be_enough(answerer: AnswerRun) -> None:
    context = " ".join([*FILLERS * 5, "secret keys", *FILLERS * 5])
    found = answerer.explain(pa.table({"question": ["which one is it"], "context": [context]}), evaluations=64)[0]
    assert len(found.players) <= 64 and found.shares.sum() == pytest.approx(found.score - found.base, abs=1e-6)
    assert found.evaluations <= 66 and not found.reliable and "caution" in sentences(found)[-1]


def test_the_place_of_what_stays_is_found_in_any_text_without_some_words(answerer: AnswerRun) -> None:
    tokenizer = answerer._answerer.tokenizer
    text = "  lamp  (secret)\tkeys one, 我们去 wind "
    start = text.index("keys one")
    words = Words("c", text, tokenizer, fixed=(start, start + len("keys one,")))
    for code in range(2 ** len(words.players)):
        present = (code >> np.arange(len(words.players))) & 1 == 1
        told = words.without(present)
        place = words.place(start, present)
        assert told[place : place + len("keys one,")] == "keys one,"


# ---- nearness of two texts


NUMBERS = ["un", "deux", "trois", "quatre", "cinq", "sept", "huit", "neuf", "onze", "douze", "treize", "vingt"]


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> PairRun:
    """What the two texts have in common is a number, as a digit and as a word."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        number = random.integers(len(NUMBERS))
        both = [list(random.choice(FILLERS, 4)) for _ in range(2)]
        for words, cue in zip(both, (f"no{number}", NUMBERS[number]), strict=True):
            words[random.integers(4)] = cue
        rows.append({"en": " ".join(both[0]), "fr": " ".join(both[1])})
    return weft.train(
        pa.Table.from_pylist(rows), {"column": "fr", "type": "embedding"}, tmp_path_factory.mktemp("f") / "run",
        quiet=True, features={"en": "text"}, model={"width": 32, "layers": 1},
        training={"epochs": 12, "learning_rate": 5e-3, "batch_rows": 32},
    )  # fmt: skip


def test_the_words_that_bring_two_texts_near_are_the_first(finder: PairRun) -> None:
    random = np.random.default_rng(1)
    rows, cues = [], []
    for _ in range(100):
        number = random.integers(len(NUMBERS))
        rows.append({"en": f"box no{number} wind", "fr": f"paper keys {NUMBERS[number]}"})
        cues.append({f"no{number}", NUMBERS[number]})
    found = finder.explain(pa.Table.from_pylist(rows))
    firsts = [{e.players[i].shown for i in np.argsort(-np.abs(e.shares))[:2]} for e in found]
    assert sum(one == cue for one, cue in zip(firsts, cues, strict=True)) >= 95
    vectors = finder.embed([rows[0]["en"], rows[0]["fr"]])
    assert found[0].answer == pytest.approx(vectors[0] @ vectors[1], abs=1e-5)
    question = next(finder._questions(weft.data.table.Table.of(pa.Table.from_pylist(rows)), None, False))[1]
    assert np.allclose(shares_of(found[0]), brute_force(question.ask, [0, 0, 0, 1, 1, 1]), atol=1e-5)
    half = finder.embed([rows[0]["en"], "paper keys"])  # without the cue of one text, the other whole
    assert question.ask(np.array([[True] * 5 + [False]]))[0, 0] == pytest.approx(half[0] @ half[1], abs=1e-5)
    assert "brought them nearer" in sentences(found[0])[0] and "接近程度" in sentences(found[0], "zh")[0]
    with pytest.raises(UsageError, match="no other answer to explain"):
        finder.explain(pa.Table.from_pylist(rows[:1]), of="x")


# ---- shown


def test_pages_hold_the_table_of_words_and_the_figures_in_both_languages(
    writer: TextRun, answerer: AnswerRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("s\nbox red wind\nkeys blue lamp\n")
    for language, title in (("en", "What each word of the source adds"), ("zh", "原文的每个词")):
        page = tmp_path / f"{language}.html"
        assert call(["explain", str(writer.path), str(rows), "--row", "1", "--html", str(page), "--language",
                     language]) == 0  # fmt: skip
        text, printed = page.read_text(encoding="utf-8"), capsys.readouterr().out
        assert title in text and text.count('<th scope="row">') == 5 and "<script" not in text
        assert "bleu" in printed and "keys blue lamp" in printed and "row 1, t" in printed
    page = write_page(tmp_path / "a.html", answerer.explain(hidden(2, 5)), "run", "rows", "zh").read_text("utf-8")
    assert "模型的回答是" in page and "去掉其他所有词" in page
    assert call(["explain", str(writer.path), str(rows), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["explanations"][0]
    assert np.allclose([sum(w["shares"]) for w in told["words"]], [w["score"] - w["base"] for w in told["words"]])


def test_wrong_use_is_told(writer: TextRun, capsys: pytest.CaptureFixture[str]) -> None:
    for code, arguments, words in (
        (2, ["rows.csv", "--prompt", "box"], "not both"), (2, [], "must be DATA"),
        (2, ["--prompt", "box", "--column", "s"], "--column is for an imported checkpoint"),
        (2, ["--prompt", "box", "--method", "attention"], "must be 'shap'"),
        (1, ["--prompt", " "], "must hold a word"), (1, ["--prompt", "box", "--of", " "], "must hold at least one"),
        (1, ["--prompt", "box", "--of", "ici " * 400], "must fit the model's"),
    ):  # fmt: skip
        assert call(["explain", str(writer.path), *arguments]) == code
        assert words in capsys.readouterr().err
    with pytest.raises(UsageError, match="either a table or a prompt"):
        writer.explain()
    with pytest.raises(DataError, match="must hold rows to explain"):
        writer.explain(pa.table({"s": pa.array([], pa.string())}))
    with pytest.raises(DataError, match="must hold the columns"):
        writer.explain(pa.table({"x": ["a"]}))
