"""The look at a table: what is asked against what is there, all problems at once."""

from __future__ import annotations

from typing import Any

import pytest

from weft.config import from_mapping
from weft.data.plan import Plan, look
from weft.data.table import Table
from weft.errors import DataError, SettingsError

DATA = {
    "id": list(range(40)),
    "price": [i / 3 for i in range(40)],
    "city": ["Rome", "Oslo"] * 20,
    "day": [f"{i % 27 + 1:02d}.03.2024" for i in range(40)],
    "fold": ["train", "train", "valid", "test"] * 10,
    "nested": [[1]] * 40,
    "y": ["a", "b", "b", "b"] * 10,
}


def plan(cells: dict[str, Any] | None = None, /, **settings: Any) -> Plan:
    return look(from_mapping({"target": "y", **settings}), Table.of(cells or DATA))


def test_types_reasons_and_what_is_left_out() -> None:
    found = plan(data={"split": {"column": "fold"}}, features={"city": "text", "price": "off"})
    assert found.types == {"city": "text", "day": "time", "nested": "sequence"} and found.reasons["city"] == "as set"
    assert found.formats["day"] == "%d.%m.%Y" and found.extra == {"fold": "category"}
    assert set(found.left_out) == {"id", "price", "fold"} and found.left_out["price"] == "as set"
    assert (found.target, found.target_type) == ("y", "class")


def test_a_split_column_that_is_also_read_keeps_both_uses() -> None:
    found = plan(data={"split": {"by": "price"}})
    assert found.types["price"] == "number" and found.extra == {"price": "category"}
    assert plan(data={"split": {"time": "day"}}).extra == {}


def test_all_unknown_columns_at_once_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        plan(target="yy", features={"pricee": "number", "nested": "category"}, data={"split": {"by": "citty"}})
    found = caught.value.problems
    assert len(found) == 4 and "'yy' (target)" in found[0]
    assert "'pricee' (features.pricee). Did you mean 'price'?" in found[1]
    assert "'citty' (data.split.by). Did you mean 'city'?" in found[2]
    assert "features.nested 'nested' must hold single values. Got list" in found[3]


def test_a_target_that_cannot_be_one() -> None:
    with pytest.raises(SettingsError, match="the target cannot be read as well"):
        plan(features={"y": "category"})
    with pytest.raises(SettingsError, match="the target 'nested' must hold single values"):
        plan(target={"column": "nested", "type": "class"})
    assert plan(target="nested").target_type == "labels"
    for cells in ([None] * 3, ["NA", "", "?"], [float("nan")] * 3):
        with pytest.raises(DataError, match="the target 'y' is missing in every row"):
            plan({"x": [1, 2, 3], "y": cells})
    warned = plan({"x": [i / 7 for i in range(60)], "y": [f"name {i}" for i in range(60)]}).warnings
    assert len(warned) == 1 and "60 classes in 60 rows" in warned[0]


def test_classes_are_weighed_where_there_are_classes() -> None:
    assert plan(training={"class_weight": "balanced"}).target_type == "class"
    for target, kind in (("price", "a number"), ("nested", "a list of labels")):
        with pytest.raises(SettingsError, match=rf"class_weight: is for a target of classes. '{target}' is {kind}"):
            plan(target=target, training={"class_weight": "balanced"})


def test_a_target_said_to_be_a_number() -> None:
    found = plan(target={"column": "id", "type": "class"})
    assert (found.target_type, found.target_reason) == ("class", "as set")


def test_tables_with_nothing_to_read() -> None:
    with pytest.raises(DataError, match="must hold rows"):
        look(from_mapping({"target": "y"}), Table.of({"x": [], "y": []}))
    with pytest.raises(DataError, match=r"no column is left to read beside the target\. 'x': always holds"):
        plan({"x": [1, 1, 1], "y": ["a", "b", "a"]})
    with pytest.raises(DataError, match="There is no other"):
        plan({"y": ["a", "b", "a"]})


def test_a_time_column_without_a_known_format() -> None:
    with pytest.raises(DataError, match=r"the time column 'city' must hold dates.*Got 'Rome'\. Set features\.city"):
        plan(features={"city": "time"})
    assert plan(features={"price": "time"}).types["price"] == "time"  # seconds since 1970


def test_a_sorted_table_is_seen_from_beginning_to_end() -> None:
    rows = 60_000
    late = {
        "n": list(range(rows)), "seen": [0] * 50_000 + list(range(10_000)), "x": [i % 97 for i in range(rows)],
        "y": ["a"] * 50_000 + ["b"] * 10_000,
    }  # fmt: skip
    found = plan(late)
    assert set(found.types) == {"seen", "x"} and "like an id" in found.left_out["n"]


def test_a_leak_is_a_warning() -> None:
    found = plan({**DATA, "copy": [f"{v}!" for v in DATA["y"]]})
    assert len(found.warnings) == 1 and found.warnings[0].startswith("'copy' alone tells the target")
    assert found.types["copy"] == "category"
