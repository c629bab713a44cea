"""What a column is taken for, with the reason; columns that give the answer away, and those that do not."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_breast_cancer

from weft.config import from_mapping
from weft.data.columns import guess, guess_target, leaks, parse_number, parse_time, time_format
from weft.data.plan import look
from weft.data.table import Table

N = 300
DRAW = random.Random(0)
WORDS = (
    "the",
    "a",
    "blue",
    "red",
    "dress",
    "fits",
    "well",
    "small",
    "large",
    "and",
    "very",
    "nice",
    "cotton",
    "soft",
    "warm",
    "summer",
    "party",
    "gift",
    "for",
    "my",
    "mother",
)
HAN = "春江潮水连海平上明月共生滟随波千万里何处无流宛转绕芳甸照花林皆似霰空霜不觉飞汀白沙看见人望相年"
DAYS = [datetime.datetime(2020, 1, 1) + datetime.timedelta(days=7 * i, minutes=17 * i) for i in range(N)]


def some(*values: object) -> list:
    return [DRAW.choice(values) for _ in range(N)]


def words(low: int, high: int) -> list[str]:
    return [" ".join(DRAW.choices(WORDS, k=DRAW.randint(low, high))) for _ in range(N)]


def han(low: int, high: int) -> list[str]:
    return ["".join(DRAW.choices(HAN, k=DRAW.randint(low, high))) for _ in range(N)]


def days(pattern: str) -> list[str]:
    return [d.strftime(pattern) for d in DAYS]


FIRST = [a + b for a in ("An", "Be", "Ca", "Do", "El") for b in "abcdefghij"]
NAMES = [f"{a} {b}son" for a in FIRST for b in ("Er", "Jo", "Ma", "La", "Ol", "Pe")]

COLUMNS: dict[str, tuple[str, list | pa.Array, str, str]] = {
    "running number": ("id", list(range(N)), "off", "like an id"),
    "running number without a name": ("n", list(range(100, 100 + N)), "off", "like an id"),
    "id with gaps": ("CustomerID", DRAW.sample(range(10**6), N), "off", "like an id"),
    "id as text": ("order_id", [f"A-{i:05d}-{i % 7}" for i in range(N)], "off", "code in every row"),
    "uuid": ("x", [f"{DRAW.getrandbits(128):032x}" for _ in range(N)], "off", "code in every row"),
    "paid is no id": ("amount_paid", DRAW.sample(range(10**6), N), "number", "whole number"),
    "bid is no id": ("bid", [str(v) for v in DRAW.sample(range(10**6), N)], "number", "reads as a whole number"),
    "leading zeros": ("zip", some("01234", "00501", "90210", "10001"), "category", "4 different values"),
    "money": ("price", [f"${v:,.2f}" for v in range(1_000, 1_000 + 7 * N, 7)], "number", "every value reads"),
    "losses": ("gain", some("($1,234.50)", "-$3", "$5", "-$1,000.25"), "number", "every value reads"),
    "percents": ("rate", [f"{v / 7:.1f} %" for v in range(N)], "number", "every value reads"),
    "full-width digits": ("数量", some("１２", "３.５", "－４", "￥１,２３４"), "number", "every value reads"),
    "iso days": ("day", days("%Y-%m-%d"), "time", "dates"),
    "iso moments": ("at", days("%Y-%m-%dT%H:%M:%SZ"), "time", "dates"),
    "us days": ("day", days("%m/%d/%Y"), "time", "dates"),
    "us moments": ("at", days("%m/%d/%Y %I:%M %p"), "time", "dates"),
    "british moments": ("at", days("%d/%m/%Y %H:%M:%S"), "time", "dates"),
    "german days": ("tag", days("%d.%m.%Y"), "time", "dates"),
    "days without zeros": ("d", [f"{d.year}-{d.month}-{d.day}" for d in DAYS], "time", "dates"),
    "chinese days": ("日期", [f"{d.year}年{d.month}月{d.day}日" for d in DAYS], "time", "dates"),
    "named months": ("d", days("%d %b %Y"), "time", "dates"),
    "timestamps": ("at", pa.array(DAYS), "time", "timestamp"),
    "booleans": ("b", some(True, False), "category", "true or false"),
    "booleans as text": ("b", some("true", "false"), "category", "2 different values"),
    "yes and no": ("smoker", some("yes", "no"), "category", "2 different values"),
    "chinese texts": ("评论", han(15, 40), "text", ""),
    "chinese lines of one length": ("句", han(7, 7), "text", ""),
    "chinese names": ("姓名", han(2, 2), "text", "short texts"),
    "chinese categories": ("城市", some("北京", "上海", "广州", "深圳"), "category", "4 different values"),
    "reviews": ("review", words(8, 40), "text", "words on average"),
    "short titles": ("title", words(2, 3), "text", "short texts"),
    "names": ("Name", NAMES, "text", "short texts"),
    "addresses of mail": ("email", [f"{n.split()[0].lower()}@{i}.org" for i, n in enumerate(NAMES)], "off", "code"),
    "one long cell among short ones": ("c", [*some("a", "b")[1:], "b" * 500], "category", "3 different values"),
    "mostly missing": ("x", [1.5 if i % 20 == 0 else None for i in range(N)], "number", "stored as double"),
    "one word or missing": ("flag", ["x" if i % 9 == 0 else None for i in range(N)], "category", "1 different values"),
    "constant": ("c", ["same"] * N, "off", "always holds 'same'"),
    "constant number": ("c", [3] * N, "off", "always holds '3'"),
    "all null": ("c", [None] * N, "off", "every value is missing"),
    "all nan": ("c", [float("nan")] * N, "off", "every value is missing"),
    "words for missing": ("c", some("NA", "?", "null", ""), "off", "every value is missing"),
    "whole numbers of few values": ("n", some(0, 1, 2, 3), "number", "whole number"),
    "zero and one": ("n", some(0, 1), "number", "whole number with 2 values"),
    "one percent junk": ("n", [*(str(v / 8) for v in range(N - 3)), "x", "y", "n/a"], "number", "99.3% of the values"),
    "mostly words": (
        "n",
        [*some("1", "2", "3")[: N // 2], *some("a", "b")[: N // 2]],
        "category",
        "5 different values",
    ),
    "lists": ("l", [[1, 2], [3]] * (N // 2), "sequence", "every cell is a list of items"),
    "vectors": ("v", [[0.1, 2.5]] * N, "off", "list"),
    "bytes": ("img", [bytes(DRAW.choices(range(256), k=30)) for _ in range(N)], "off", "bytes"),
    "text as bytes": ("b", [w.encode() for w in some("red", "blue")], "category", "2 different values"),
    "durations": ("d", [datetime.timedelta(seconds=i) for i in range(N)], "number", "duration"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_guess(case: str) -> None:
    name, values, kind, reason = COLUMNS[case]
    column = values if isinstance(values, pa.Array) else pa.array(values)
    found = guess(name, pa.chunked_array([column.slice(0, 7), column.slice(7)]))
    assert found.type == kind and reason in found.reason, found


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (some("yes", "no"), "class"), (some(True, False), "class"), (some(0, 1), "class"),
        (some(1.0, 2.0, 3.0), "class"),
        ([i / 7 for i in range(N)], "number"), (list(range(N)), "number"), (some("1.5", "2.5", "NA", "?"), "number"),
        ([f"${i},000" for i in range(1, N)], "number"), (some(b"a", b"b"), "class"), (han(2, 3), "class"),
    ],
)  # fmt: skip
def test_guess_target(values: list, kind: str) -> None:
    assert guess_target(pa.array(values)).type == kind


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1), (" -1.5e3 ", -1500), ("+5", 5), ("$1,234.50", 1234.5), ("-$3", -3), ("$-3", -3),
        ("($1,234.5)", -1234.5), ("12 %", 12),
        ("€5", 5), ("¥1,000", 1000), ("１２．５", 12.5), ("−5", -5), (".5", 0.5), ("1,234,567", 1234567),
        ("", None), ("1,23", None), ("1,2345", None), ("1_000", None), ("0x10", None), ("abc", None),
        ("$", None), ("%", None),
        ("()", None), ("(-5)", None), ("5-", None), ("1 2", None), ("--5", None), ("1" * 41, None),
        ("5 EUR", None), ("-", None),
    ],
)  # fmt: skip
def test_parse_number(text: str, number: float | None) -> None:
    assert parse_number(text) == number


def test_times_with_zones_are_one_moment() -> None:
    moments = ["2026-11-21T08:30:00", "2026-11-21T08:30:00Z", "2026-11-21T16:30:00+08:00", "2026-11-21 03:30-05:00"]
    assert len({parse_time(m, "iso") for m in moments}) == 1
    assert parse_time("21.11.2026", "%d.%m.%Y") == parse_time("2026-11-21", "iso") == 1795219200.0
    assert parse_time("2026-02-30", "iso") is None


def test_the_format_that_reads_most_wins() -> None:
    assert time_format(["01/02/2020", "03/04/2020", "25/12/2020"]) == "%d/%m/%Y"
    assert time_format(["01/02/2020", "12/25/2020"]) == "%m/%d/%Y"
    assert time_format(["soon", "later"]) is None and time_format([]) == "iso"


class TestLeaks:
    NUMBERS = np.random.default_rng(0).normal(size=N)
    WIDE = pa.array(NUMBERS)
    CLASSES = pa.array(["yes" if v > 0.3 else "no" for v in NUMBERS])

    @pytest.mark.parametrize(
        ("column", "target", "what"),
        [
            (CLASSES, CLASSES, "equals the target"),
            (pa.array([f"is {c}" for c in CLASSES.to_pylist()]), CLASSES, "alone tells the target in 100.0%"),
            (pa.array([c == "yes" for c in CLASSES.to_pylist()]), CLASSES, "alone tells the target"),
            (WIDE, WIDE, "equals the target"),
            (pa.array(1000 - 3.5 * NUMBERS), WIDE, "is the target up to scale"),
            (pa.array([f"${v:,.3f}" for v in 5000 + 1000 * NUMBERS]), WIDE, "is the target up to scale"),
            (WIDE, CLASSES, "alone separates the target"),
            (pa.array([str(v) if i % 9 else "NA" for i, v in enumerate(NUMBERS)]), CLASSES, "alone separates"),
            (pa.array([f"why {i}" if v > 0.3 else None for i, v in enumerate(NUMBERS)]), CLASSES, "is missing tells"),
        ],
    )  # fmt: skip
    def test_found(self, column: pa.Array, target: pa.Array, what: str) -> None:
        found = leaks("x", pa.chunked_array([column]), pa.chunked_array([target]))
        assert found is not None and what in found and "features.x: off" in found

    def test_no_false_alarm(self) -> None:
        draw = np.random.default_rng(1)
        noisy = [c if draw.random() < 0.95 else "yes" for c in self.CLASSES.to_pylist()]
        steps = np.repeat(np.arange(N // 3), 3)  # ties hide where the classes mix
        mixed = ["yes", "no", "yes"] * (N // 3)
        half = [0] * 200 + list(range(1, 101))  # nothing tells apart the 200, sorted as they are
        halved = ["no"] * 100 + ["yes"] * 200
        for column, target in [
            (noisy, self.CLASSES), (draw.normal(size=N), self.CLASSES), (draw.integers(0, 9, N), self.CLASSES),
            ([str(i) for i in range(N)], self.CLASSES), (steps, mixed), (half, halved),
            (self.NUMBERS + draw.normal(size=N), self.WIDE),
            ([1.0 if draw.random() < 0.5 else None for _ in range(N)], self.CLASSES), ([None] * N, self.CLASSES),
        ]:  # fmt: skip
            assert leaks("x", pa.chunked_array([pa.array(column)]), pa.chunked_array([pa.array(target)])) is None


def test_adult_is_read_without_a_false_alarm(shared: Callable[[str], Path]) -> None:
    table = pq.read_table(shared("adult.parquet"))
    plan = look(from_mapping({"target": "income"}), Table.of(table))
    assert plan.warnings == [] and plan.target_type == "class"
    assert plan.types["age"] == "number" and plan.types["occupation"] == "category"
    table = table.append_column("copy", pa.compute.equal(table.column("income"), table.column("income")[0]))
    assert any("'copy' alone tells" in w for w in look(from_mapping({"target": "income"}), Table.of(table)).warnings)


def test_breast_cancer_is_read_without_a_false_alarm() -> None:
    data = load_breast_cancer()
    columns = {str(n): data.data[:, i] for i, n in enumerate(data.feature_names)} | {"diagnosis": data.target}
    plan = look(from_mapping({"target": "diagnosis"}), Table.of(columns))
    assert plan.warnings == [] and set(plan.types.values()) == {"number"} and len(plan.types) == 30
