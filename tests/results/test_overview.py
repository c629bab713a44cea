"""The section that says why: planted facts are found, its figures are those of other ways to compute them."""

import ast
import inspect
import json
import re
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from tests.results.test_report import Page

import weft
from weft.cli import call
from weft.config import SettingsError, from_mapping
from weft.features.targets import ClassTarget
from weft.preprocess import duplicates
from weft.preprocess.clean import CleanBatch
from weft.results import mislabelled, quality
from weft.results.explain import page
from weft.results.explain import section as section_module
from weft.results.explain import words as words_module
from weft.results.explain.overview import budget, effect, interactions
from weft.results.explain.page import marked, write_page
from weft.results.explain.section import pick_examples
from weft.results.metrics import METRICS
from weft.results.outcomes import Outcomes
from weft.results.pages import chinese, environment
from weft.results.report import _STEPS
from weft.results.summary import _WITHIN_CHANCE, SHOWN

HOSTILE = '<script>alert("1")</script>'


def planted(rows=900, seed=0):
    """Yes where the text holds 'splendid', or both ``a`` and ``b`` are high; of one colour the answer is chance."""
    random = np.random.default_rng(seed)
    fillers = [*"the a blue box came on monday with some paper and two small keys for our old".split(), HOSTILE]  # noqa: SIM905
    good, a, b = random.random(rows) < 0.5, random.normal(size=rows), random.normal(size=rows)
    texts = []
    for g in good:
        words = list(random.choice(fillers, 6))
        words[random.integers(6)] = "splendid" if g else "dreadful"
        texts.append(" ".join(words))
    colour = random.choice(["red", "green", "grey"], rows)
    yes = np.where(colour == "red", random.random(rows) < 0.5, good)
    return pa.table({"text": texts, "a": a, "b": b, "colour": colour, "answer": np.where(yes, "yes", HOSTILE)})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return weft.train(
        planted(), "answer", tmp_path_factory.mktemp("why") / "run", quiet=True, features={"text": "text"},
        training={"epochs": 4}, model={"width": 32, "layers": 1, "copies": 1}, results={"baselines": False},
        data={"split": {"test": 0.4, "valid": 0.1}},
    )  # fmt: skip


def test_what_was_planted_is_said(run):
    found = run.figures["explain"]
    assert found["columns"][0]["column"] == "text" and found["columns"][0]["share"] > 0.5
    assert sum(c["share"] for c in found["columns"]) == pytest.approx(1)
    sides = {w["class"]: ([x["word"] for x in w["for"]], [x["word"] for x in w["against"]]) for w in found["words"]}
    up, down = next(iter(sides.values()))
    assert {up[0], down[0]} == {"splendid", "dreadful"}
    assert found["groups"]["worse"][0]["is"] == "red"
    assert found["rows"] >= 8 and found["budget"] == budget(run.figures["seconds"]["model"])
    for kind, right in (("typical", True), ("surprising", False)):
        for row in found["examples"][kind]:
            assert (row["answer"] == row["truth"]) == right
    assert all(run.figures["target"]["name"] == row["target"] for row in found["examples"]["typical"])


def test_rows_with_nothing_in_them_are_passed_over(tmp_path):
    random = np.random.default_rng(0)
    answer = random.integers(2, size=300)
    texts = [[None if random.random() < 0.5 else ("poor bad", "good nice")[k] for k in answer] for _ in range(2)]
    table = pa.table({"a": texts[0], "b": texts[1], "answer": answer.astype(str)})
    run = weft.train(table, "answer", tmp_path / "run", quiet=True, features={"a": "text", "b": "text"},
                     model={"width": 16, "layers": 1}, results={"baselines": False})  # fmt: skip
    said = {w["word"] for c in run.figures["explain"]["words"] for w in c["for"]}
    assert said & {"poor", "bad", "good", "nice"}


def test_the_page_has_the_section_in_both_languages_and_no_markup_of_the_data(run, tmp_path):
    for language, words in (("en", "Of all that moves its answers, most comes from text"), ("zh", "占比最大的是text")):
        path = run.report(language)
        shown = Page(path.read_text(encoding="utf-8"))
        assert f'<html lang="{language}">' in path.read_text(encoding="utf-8")
        assert words in shown.text and not shown._open and "script" not in shown.tags and not shown.links
        assert "splendid" in shown.text and HOSTILE in shown.text
    chrome = (
        "与简单模型相比",
        "它的把握可信吗？",
        "错在哪里",
        "制作过程",
        "在没有见过的 360 行上，模型对“answer”判断正确的有",
    )
    assert all(words in shown.text for words in chrome) and "rows it never saw" not in shown.text
    assert "当colour为“red”时" in shown.text
    assert "Where colour is 'red', it is right in" in Page(run.report("en").read_text()).text


def test_the_text_is_marked_letter_for_letter():
    text = f"A  splendid,\n{HOSTILE} box"
    start = text.index("splendid")
    words = [
        {"start": 0, "end": 1, "share": 0.01}, {"start": start, "end": start + 9, "share": 1.0},
        {"start": len(text) - 3, "end": len(text), "share": -0.3},
    ]  # fmt: skip
    pieces = marked(text, words, 1.0, "shap")
    assert "".join(p["text"] for p in pieces) == text
    assert [(p["text"], p["side"], p["level"]) for p in pieces if p["level"]] == [
        ("splendid,", "for", 4), ("box", "against", 2)
    ]  # fmt: skip


def test_explained_rows_have_a_page_of_their_own(run, tmp_path, capsys):
    file, out = tmp_path / "rows.csv", tmp_path / "why.html"
    file.write_text(f'text,a,b,colour\n"the splendid {HOSTILE.replace(chr(34), chr(34) * 2)} box",0,0,grey\n')
    for language in ("en", "zh"):
        assert call(["explain", str(run.path), str(file), "--html", str(out), "--language", language]) == 0
        text = out.read_text(encoding="utf-8")
        shown = Page(text)
        assert f'<html lang="{language}">' in text and "script" not in shown.tags and not shown.links
        assert not shown._open and "default-src 'none'" in text
        assert re.search(r'<mark class="(for|against) s4">splendid</mark>', text) and HOSTILE in shown.text
        heading = {"en": "Can this explanation be trusted?", "zh": "这个解释可信吗？"}[language]
        assert heading in shown.text
    why = run.explain(planted(1))[0]
    why.checks = [type(why.checks[0])("same again", 0.1, 0.7, False)]
    text = Page(write_page(out, [why], "run", "table").read_text()).text
    assert "Unreliable: at least one check failed." in text
    assert "✗ Not so: A second try gives the same picture" in text and "(0.1, must be ≥ 0.7)" in text
    capsys.readouterr()
    assert call(["explain", str(run.path), str(file), "--html", str(tmp_path / "no" / "where.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_interactions_are_the_mean_over_all_orders():
    random = np.random.default_rng(0)
    worth = random.normal(size=16)
    game = lambda present: worth[(present * (1 << np.arange(4))).sum(axis=1)]  # noqa: E731

    def both(i, j):
        """Over the orders in which i and j stand side by side as one: what both add beyond what each adds."""
        found = []
        others = [p for p in range(4) if p not in (i, j)]
        for order in permutations([*others, "ij"]):
            before = sum(1 << p for p in order[: order.index("ij")])
            found.append(
                worth[before | 1 << i | 1 << j] - worth[before | 1 << i] - worth[before | 1 << j] + worth[before]
            )
        return np.mean(found)

    found = interactions(game, 4)
    for i in range(4):
        for j in range(4):
            assert found[i, j] == pytest.approx(0 if i == j else both(i, j))


def test_the_effect_of_a_number_is_its_shares_over_its_values():
    values = np.array([1.0, 2, 3, 4, np.nan, 5, 6, 7, 8])
    sample = CleanBatch(np.arange(9), {"x": pa.array(values, from_pandas=True)}, [])
    shares = np.where(np.isnan(values), 9.0, 2 * np.nan_to_num(values) - 9)
    found = effect("x", sample, shares)
    assert found["points"] == [[v, 2 * v - 9] for v in (1, 2, 3, 4, 5, 6, 7, 8)]
    assert all(y == pytest.approx(2 * x - 9) for x, y in found["line"]) and found["direction"] == pytest.approx(1)


def test_examples_are_typical_of_each_class_and_the_surest_errors():
    target = ClassTarget("t", ["a", "b"])
    p = np.array([0.9, 0.8, 0.7, 0.99, 0.2, 0.3, 0.05, 0.6])
    truth = np.array([0, 0, 0, 0, 1, 1, 0, 1])
    said = Outcomes(target, np.stack([p, 1 - p], axis=1), truth)
    assert said.wrong.tolist() == [0, 0, 0, 0, 0, 0, 1, 1] and said.surprise[6] == pytest.approx(-np.log(0.05))
    found = pick_examples(said)
    assert found["surprising"].tolist() == [6, 7]
    assert sorted(truth[found["typical"][:2]]) == [0, 1] and 3 not in found["typical"]


def test_off_leaves_it_out_and_it_is_for_rows_only(tmp_path):
    table = planted(200)
    run = weft.train(
        table, "answer", tmp_path / "run", quiet=True, training={"epochs": 1}, model={"width": 16, "layers": 1},
        results={"baselines": False, "explain": "off", "report": "zh"},
    )  # fmt: skip
    assert run.figures["explain"] is None
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert '<html lang="zh">' in text and "模型依据什么" not in text
    with pytest.raises(SettingsError, match=r"'results\.explain', 'results\.report' is for a target column of a row"):
        from_mapping({"target": {"next_token": "text"}, "results": {"explain": "off", "report": "zh"}})


def strings(module):
    """The constant strings of a module that are no docstrings."""
    tree = ast.parse(inspect.getsource(module))
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    parts = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    return [
        n.value for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs | parts
    ]  # fmt: skip


def test_every_phrase_of_the_templates_is_known_in_chinese():
    loader = environment().loader
    assert loader is not None
    said = set()
    for name in loader.list_templates():
        if name.endswith(".html"):
            source = loader.get_source(environment(), name)[0]
            said |= set(re.findall(r'\bt\("((?:[^"\\]|\\.)*)"', source))
    said |= set(words_module._SAID.values())
    for module in (section_module, page, quality, mislabelled, duplicates):
        said |= {phrase for phrase in strings(module) if re.search(r"[a-z] \{|\} [a-z]", phrase)}
    said |= {
        phrase for key in SHOWN.values() for name in key for phrase in (METRICS[name].title, METRICS[name].meaning)
    }
    said |= {*quality._MEASURED.values(), "different", "very different"}
    said |= {what for step in _STEPS for what in step} | set(page.CHECKS.values()) | set(_WITHIN_CHANCE.values())
    assert len(said) > 100 and said <= set(chinese()), said - set(chinese())
    for english, words in chinese().items():  # a phrase that names a figure names it in both
        named = [set(re.findall(r"{(\w+)", phrase)) for phrase in (english, words)]
        if "interval" in named[0]:  # which is words itself
            named[0] = named[0] - {"interval"} | {"low", "high"}
        assert named[0] == named[1], english


@pytest.mark.parametrize("kind", ["number", "labels", "classes"])
def test_every_kind_of_target_has_the_section(tmp_path, capsys, kind):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 400))
    words = np.where(a > 0, "a good box", "a bad box")
    answer = {
        "number": pa.array(3 * a + np.where(b > 1, random.normal(0, 3, 400), 0)),
        "labels": pa.array(
            [[*(["up"] if x > 0 else []), *(["right"] if y > 0 else [])] for x, y in zip(a, b, strict=True)]
        ),
        "classes": pa.array(np.select([a > 0.4, a < -0.4], ["high", "low"], "middle")),
    }[kind]
    run = weft.train(
        pa.table({"a": a, "b": b, "words": words, "answer": answer}),
        {"column": "answer", **({"type": "labels"} if kind == "labels" else {})}, tmp_path / "run", quiet=True,
        features={"words": "text"}, training={"epochs": 8}, model={"width": 16, "layers": 1, "copies": 1},
        results={"baselines": False}, data={"split": {"test": 0.4, "valid": 0.1}},
    )  # fmt: skip
    found = run.figures["explain"]
    assert found["columns"][0]["column"] in ("a", "words") or kind == "labels"
    assert ("a" in [e["column"] for e in found["effects"]]) == (kind == "number")
    assert call(["report", str(run.path), "--language", "zh"]) == 0
    told = Page((run.path / "report.html").read_text(encoding="utf-8")).text
    assert "模型依据什么" in told and "举例" in told
    expected = {"number": "a越高，答案越高。", "labels": "标签，F1 为", "classes": "判断正确的有"}[kind]
    assert expected in told


def test_the_figures_are_json(run):
    assert json.loads(json.dumps(run.figures["explain"])) == run.figures["explain"]
