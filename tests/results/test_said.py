"""What a run says of its data in English is said in Chinese on a Chinese page."""

import re

import numpy as np
import pyarrow as pa
import pytest

from weft.data.columns import guess, guess_target, leaks
from weft.results.pages import Phrases

ROWS = 60
COLUMNS = {
    "missing": pa.nulls(ROWS), "lists": pa.array([["a", "b"]] * ROWS), "bytes": pa.array([b"\xff\x00"] * ROWS),
    "constant": pa.array(["x"] * ROWS), "bool": pa.array([True, False] * (ROWS // 2)), "id": pa.array(range(ROWS)),
    "whole": pa.array([1, 2, 3] * (ROWS // 3)), "two": pa.array([1, 2] * (ROWS // 2)),
    "float": pa.array(np.linspace(0, 1, ROWS)), "numbers": pa.array(["1.5", "2"] * (ROWS // 2)),
    "dates": pa.array([f"2026-01-{1 + i % 28:02d}" for i in range(ROWS)]),
    "code": pa.array([f"A{i:04d}" for i in range(ROWS)]),
    "texts": pa.array([f"the {i} box came on monday with keys" for i in range(ROWS)]),
    "short": pa.array([f"blue box {i}" for i in range(ROWS)]), "category": pa.array(["a", "b", "c"] * (ROWS // 3)),
}  # fmt: skip
ENGLISH = re.compile(r"[a-z]{3,}")


@pytest.mark.parametrize("name", COLUMNS)
def test_reasons_of_column_types(name: str) -> None:
    t = Phrases("zh")
    for reason in (guess(name, COLUMNS[name]).reason, guess_target(COLUMNS[name].cast(pa.string())).reason
                   if name not in ("lists", "bytes") else "it holds numbers"):  # fmt: skip
        assert Phrases().said(reason) == reason
        words = t.said(reason)
        assert words != reason and not ENGLISH.search(words.replace("int64", "").replace("double", "")), words


def test_figures_of_a_line_are_kept_and_what_is_not_known_stays() -> None:
    t = Phrases("zh")
    assert t.said("holds 61 words on average") == "平均有 61 个词"
    assert t.said("a Transformer of 2 layers and width 64") == "2 层、宽度 64 的 Transformer"
    assert t.said("90 train, 5 valid, 5 test (by column 'split')") == "训练 90，验证 5，测试 5（按列“split”划分）"
    target = pa.chunked_array([["yes", "no"] * 30])
    assert "等于目标" in t.said(leaks("copy", target, target) or "")
    assert t.said("what nobody wrote") == "what nobody wrote"
