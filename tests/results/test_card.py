"""The card of a run says in words what report.json holds, in both languages, and is the user's to edit."""

import json
import re

import pyarrow as pa
import pytest
from tests.results.test_audit_groups import strings
from tests.tables import FAST, mixed

import weft
from weft.cli import call
from weft.results import card
from weft.results.card import WATTS, write_card
from weft.results.pages import chinese
from weft.results.report import write_report

PARTS = ("What it is for", "Data and model", "What it is not for", "Groups", "Privacy", "Time and energy")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    table = mixed(200)
    notes = [f"{text} from a{i}@corp.example" for i, text in enumerate(table["review"].to_pylist())]
    settings = FAST | {
        "preprocess": {"redact": ["email"]},
        "results": {"baselines": False, "explain": "off", "fairness": {"by": ["colour"]}},
    }
    table = table.set_column(3, "review", pa.array(notes))
    return weft.train(table, "bought", tmp_path_factory.mktemp("card") / "run", quiet=True, **settings)


def test_every_part_is_said(run) -> None:
    said = (run.path / "README.md").read_text(encoding="utf-8")
    assert re.findall("^## (.*)$", said, re.M) == list(PARTS)
    assert run.figures["headline"] in said and "200 email" in said and "without differential privacy" in said
    assert "busy core" in said and "By colour:" in said.split("## Groups")[1].split("##")[0]
    assert not re.search("\n{4,}", said)  # and no holes in it


def test_energy_is_that_of_the_cpu_seconds(run) -> None:
    spent = run.figures["energy"]
    assert spent["cpu_seconds"] > 0 and spent["watts_a_core"] == WATTS
    assert spent["watt_hours"] == pytest.approx(spent["cpu_seconds"] * WATTS / 3600, abs=0.001)


def test_a_card_that_was_edited_stays_as_it_is(run) -> None:
    file = run.path / "README.md"
    before = file.read_text(encoding="utf-8")
    file.write_text("Ours: not for children.\n", encoding="utf-8")
    assert call(["report", str(run.path)]) == 0
    assert file.read_text(encoding="utf-8") == "Ours: not for children.\n"
    assert len(weft.load(run.path).predict(mixed(5).drop_columns(["bought"]))) == 5  # nor is the run refused
    file.write_text(before, encoding="utf-8")


def test_a_card_in_chinese_says_no_english_sentence(run, tmp_path) -> None:
    write_card(tmp_path, run.figures, "zh")
    said = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "200 email" in said and "瓦时" in said and "的 Transformer，" in said and "训练 " in said
    assert "points" not in said
    assert not re.search(r"[a-z]{3,} [a-z]{3,} [a-z]{3,}", said.split("## 不适用于")[1]), said
    phrases = {text for text in strings(card) if re.search("[a-z] [a-z]+ .*[.]$", text) and "``" not in text}
    phrases -= {text for text in phrases if text.startswith(("Of a busy", "Write ", "Title ", "What personal"))}
    assert len(phrases) >= 6 and phrases <= set(chinese()), phrases - set(chinese())


def test_the_report_says_how_much_personal_data_was_replaced(run, tmp_path) -> None:
    assert "replaced before anything was learnt: 200 email." in (run.path / "report.html").read_text(encoding="utf-8")
    write_report(tmp_path, run.figures, "zh")
    assert "在学习之前已替换个人信息：200 email。" in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_report(tmp_path, {k: v for k, v in run.figures.items() if k != "redact"})
    assert "Personal data" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", [{"next_token": "text"}, {"column": "reply", "type": "text"}])
def test_every_task_has_one(tmp_path, target) -> None:
    rows = pa.table(
        {"text": [f"a lovely day it was, number {i} of many" for i in range(250)], "reply": ["indeed"] * 250}
    )
    settings = {"model": {"width": 16, "layers": 1}, "training": {"epochs": 1}, "results": {"baselines": False}}
    run = weft.train(rows, target, tmp_path / "run", quiet=True, **settings)
    said = (run.path / "README.md").read_text(encoding="utf-8")
    assert all(f"## {title}" in said for title in PARTS[2:]) and "publish nothing unread" in said
    assert "No personal data was replaced" in said and json.loads((run.path / "report.json").read_text())["energy"]
