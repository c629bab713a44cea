"""Figures by group are those of the group's rows alone; languages are told where there are several."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import f1_score

from weft.features.targets import ClassTarget
from weft.results.groups import MISSING, MOST_GROUPS, OTHERS, by_group, languages
from weft.results.outcomes import Outcomes

ENGLISH = ["the weather is nice today", "where is my new card", "please send the money back", "I would like a table"]
CHINESE = ["今天天气很好，我们出去走走", "我的新卡在哪里？", "请把钱退给我，谢谢", "我想订一张桌子"]
GERMAN = ["wo ist meine neue Karte geblieben", "das Wetter ist heute sehr schön", "bitte schicken Sie das Geld zurück"]


def test_each_group_is_judged_on_its_rows():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 400)
    p = random.dirichlet([1, 1, 1], 400) + np.eye(3)[truth] * 0.5
    names = np.where(np.arange(400) < 270, "en", np.where(np.arange(400) < 390, "de", None)).tolist()
    said = Outcomes(ClassTarget("y", ["a", "b", "c"]), p / p.sum(1, keepdims=True), truth)
    table = by_group(names, said)
    assert [(g["group"], g["rows"], g["small"]) for g in table] == [
        ("en", 270, False), ("de", 120, False), (MISSING, 10, True),
    ]  # fmt: skip
    for g, rows in zip(table, (slice(0, 270), slice(270, 390), slice(390, 400)), strict=True):
        guess = p[rows].argmax(1)
        assert g["metrics"]["accuracy"]["value"] == pytest.approx((guess == truth[rows]).mean())
        assert g["metrics"]["f1"]["value"] == pytest.approx(f1_score(truth[rows], guess, average="macro"))
        assert g["metrics"]["accuracy"]["low"] < g["metrics"]["accuracy"]["high"]


def test_the_smallest_of_many_groups_are_one():
    names = [str(i) for i in range(MOST_GROUPS + 5) for _ in range(2)]
    target = ClassTarget("y", ["a", "b"])
    table = by_group(names, Outcomes(target, np.full((len(names), 2), 0.5), np.arange(len(names)) % 2, 1))
    assert len(table) == MOST_GROUPS + 1 and table[0]["group"] == OTHERS and table[0]["rows"] == 10


def test_languages_are_told_where_there_are_several():
    texts = (ENGLISH + CHINESE) * 20
    assert languages([pa.array(texts)]) == (["en"] * 4 + ["zh"] * 4) * 20
    assert languages([pa.array(ENGLISH * 40)]) is None
    rare = ENGLISH * 24 + CHINESE
    assert languages([pa.array(rare)]) is None, "4 of 100 rows are too few to be told from mistakes"
    mixed = languages([pa.array(ENGLISH * 20 + CHINESE * 10 + GERMAN + ["42", None])])
    assert mixed[-2:] == [None, None] and set(mixed) == {"en", "zh", OTHERS, None}


def test_several_columns_are_one_text():
    found = languages([pa.array(["ok", None] * 30), pa.array([ENGLISH[0], CHINESE[0]] * 30)])
    assert found == ["en", "zh"] * 30
