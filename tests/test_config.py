"""The pipeline file: every kind of mistake with its place, all at once; nothing in it is ever run."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import jsonschema
import pytest

from weft.config import Settings, dumps, from_mapping, load, loads
from weft.errors import SettingsError, UsageError

BASE = "data: {source: a.csv}\ntarget: y\n"


def problems(text: str, changes: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loads(text, "weft.yaml", changes)
    return caught.value.problems


def test_short_and_long_forms_are_equal() -> None:
    long = "data: {source: a.csv}\ntarget: {column: y}\nfeatures: {a: {type: text}}\n"
    assert loads(BASE + "features: {a: text}\n") == loads(long)


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = (
        "version: 2\n"
        "data:\n"
        "  source: 5\n"
        "  split: {column: a, by: b}\n"
        "features:\n"
        "  price: numeric\n"
        "  review: {type: text, max_tokens: 1}\n"
        "  brand: {max_categories: 5}\n"
        "  photo: {type: number, max_tokens: 64}\n"
        "trainin: {epochs: 3}\n"
        "training: {epochs: many, seed: 1.5, minutes: true}\n"
    )
    found = problems(text)
    expected = [
        ("weft.yaml: target", "is missing"),
        ("weft.yaml:1:10: version", "'2' is not known here"),
        ("weft.yaml:3:11: data.source", "must be a file, glob, folder or address, or a list of them. Got 5."),
        ("weft.yaml:4:10: data.split", "split one way. Got 'column', 'by'"),
        ("weft.yaml:6:10: features.price.type", "'numeric' is not a column type. Did you mean 'number'?"),
        ("weft.yaml:7:36: features.review.max_tokens", "greater than or equal to 4. Got 1."),
        ("weft.yaml:8:10: features.brand.type", "is missing"),
        ("weft.yaml:9:10: features.photo", "max_tokens is for text columns, this one is number"),
        ("weft.yaml:10:1: trainin", "Did you mean 'training'?"),
        ("weft.yaml:11:20: training.epochs", "must be a whole number. Got 'many'."),
        ("weft.yaml:11:32: training.seed", "must be a whole number. Got 1.5."),
        ("weft.yaml:11:46: training.minutes", "must be a number. Got true."),
    ]
    assert len(found) == len(expected), found
    for line, (where, what) in zip(found, expected, strict=True):
        assert line.startswith(where) and what in line, line


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (BASE + "data: {source: b.csv}\n", "3:1", "'data' is given twice"),
        ("data: {source: a, source: b}\ntarget: y\n", "1:19", "'source' is given twice"),
        (BASE + "model: {widht: 8}\n", "3:9", "'widht' is not a setting. Did you mean 'width'?"),
        (BASE + "zzz: 1\n", "3:1", "Known here: 'version', 'data'"),
        (BASE + "features:\n", "3:1", "features: must be a mapping of keys to values. Got nothing."),
        ("data: {source: a}\ntarget: 2020\n", "2:9", "Got 2020. Put it in quotes."),
        ("data: {source: a}\ntarget: {column: y, positive: 1}\n", "2:31", "must be a text. Got 1. Put it in quotes."),
        ("data: {source: [a, 5]}\ntarget: y\n", "1:16", "Got 5"),
        ("data: {source: a, split: {test: .nan}}\ntarget: y\n", "1:33", "must be a finite number. Got nan."),
        ("data: {source: a, split: {test: 0.5, valid: 0.4}}\ntarget: y\n", "1:26", "must leave rows to learn from"),
        ("data: {source: a, split: {stratify: NO}}\ntarget: y\n", "1:37", "must be true or false. Got 'NO'."),
        (BASE + "training: {epochs: 2.0}\n", "3:20", "must be a whole number. Got 2.0."),
        (BASE + "a: [1\nb: 2\n", "4:2", "must be valid YAML"),
        (BASE + "a: *x\n", "3:4", "undefined alias"),
        (BASE + "\tmodel: {}\n", "3:1", "must be valid YAML"),
        (BASE + "---\na: 1\n", "3:1", "another document"),
        (BASE + "? [a, b]\n: 1\n", "3:3", "a key must be a word"),
        ("[a, b]", "1:1", "must be a mapping of keys to values. Got a list."),
        ("data: {source: a}\nbase: &b {epochs: 1}\ntarget: y\ntraining: {<<: *b}\n", "4:12", "merge key"),
    ],
)
def test_each_mistake_has_its_place(text: str, where: str, what: str) -> None:
    found = [line for line in problems(text) if what in line]
    assert found and found[0].startswith(f"weft.yaml:{where}"), problems(text)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\x00", "[" * 1_200, "a: \ud800"])
def test_texts_that_are_no_settings(text: str) -> None:
    assert problems(text)[0].startswith("weft.yaml")


def test_missing_source_and_target() -> None:
    assert ["data.source is missing" in p or "target: is missing" in p for p in problems("model: {}\n")] == [True] * 2
    assert loads("target: y\n", needs_source=False).data.source is None


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/name:os.system", "!!python/tuple", "!x"])
def test_tags_are_refused_and_nothing_is_run(tag: str, tmp_path: Path) -> None:
    trap = tmp_path / "made"
    found = problems(f"data:\n  source: {tag} ['{trap}']\ntarget: y\n")
    assert found == [found[0]] and found[0].startswith("weft.yaml:2:11") and tag in found[0]
    assert not trap.exists()


def test_billion_laughs_cost_nothing() -> None:
    names = "abcdefghijklmnopqrstuvw"
    lists = "a: &a [lol]\n" + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip(names, names[1:]))  # noqa: B905, RUF007
    tracemalloc.start()
    found = problems(BASE + lists + "features: {f: {type: *w}}\nmodel: {width: *v}\ntraining: *u\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000 and max(map(len, found)) < 300
    assert any("model.width: must be a whole number. Got a list." in line for line in found)


def test_an_alias_to_itself_ends() -> None:
    assert any("features.a.type: 'a'" in p or "features.a" in p for p in problems(BASE + "features: &x {a: *x}\n"))


def test_an_alias_is_read() -> None:
    found = loads(BASE + "features: {a: &c {type: category, max_categories: 9}, b: *c}\n").features
    assert found["a"] == found["b"] and found["b"].max_categories == 9
    changed = loads(BASE + "features: {a: &c {type: text}, b: *c}\n", changes=["features.a.max_tokens=9"]).features
    assert changed["a"].max_tokens == 9 and changed["b"].max_tokens is None


def test_words_and_numbers_are_read_as_yaml_1_2() -> None:
    found = loads(
        "data: {source: 2026-11-21, split: {test: 1e-1}}\ntarget: NO\ntraining: {learning_rate: 1e-3, seed: 0x1F}\n"
        "features: {NO: text, 2020: number, null: category, 1e-3: off}\n"
    )
    assert (found.target.column, found.data.source) == ("NO", "2026-11-21")
    assert (found.training.learning_rate, found.training.seed, found.data.split.test) == (1e-3, 31, 0.1)
    assert list(found.features) == ["NO", "2020", "null", "1e-3"]
    assert found.features["1e-3"].type == "off"


def test_changes_of_every_shape() -> None:
    found = loads(
        BASE + "features: {price: text, old: number}\n",
        changes=[
            "training.epochs=7",
            "training.learning_rate=1e-3",
            "data.source=[x.csv, y.csv]",
            "features.price.max_tokens=64",
            "target.positive='1'",
            "features.old=off",
            'features."a.b"=number',
            "data.split={by: customer}",
            "training.epochs=8",
        ],
    )
    assert (found.training.epochs, found.training.learning_rate) == (8, 1e-3)
    assert found.data.source == ["x.csv", "y.csv"] and found.data.split.by == "customer"
    assert found.features["price"].type == "text" and found.features["price"].max_tokens == 64
    assert (found.target.column, found.target.positive) == ("y", "1")
    assert found.features["old"].type == "off" and found.features["a.b"].type == "number"
    assert loads(BASE + "training: {epochs: 5}\n", changes=["training.epochs="]).training.epochs is None


@pytest.mark.parametrize(
    "change", ["", "x", "=5", "a..b=1", ".a=1", "training.=1", "training.epochs", "a=[1", "a=*.csv"]
)
def test_changes_of_a_bad_shape(change: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        loads(BASE, changes=[change])


def test_a_change_is_blamed_not_the_file() -> None:
    text = BASE + "training: {epochs: 5}\n"
    assert problems(text, ("training.epochs=abc",)) == [
        "--set training.epochs=abc: training.epochs: must be a whole number. Got 'abc'."
    ]
    assert problems(text, ("trainin.epochs=3",))[0].startswith("--set trainin.epochs=3: trainin: 'trainin' is not")
    with pytest.raises(UsageError, match=r"'data.source' must be a group"):
        loads(text, changes=["data.source.x=1"])
    with pytest.raises(UsageError, match="never run"):
        loads(text, changes=["data.source=!!python/name:os.system x"])


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "weft.yaml"
    with pytest.raises(UsageError, match=r"there is no such file.*weft init"):
        load(path)
    with pytest.raises(UsageError, match="readable UTF-8"):
        load(tmp_path)
    path.write_text(BASE, encoding="utf-16")
    with pytest.raises(UsageError, match="readable UTF-8"):
        load(path)
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert load(path).target.column == "y"


ODD = [
    "a b", "NO", "2020", "null", ":", "长" * 200, "x\ny", "\x85", "é", "=", "<<", "", "~", "\t", "a\x07b", "😀", "# c",
    "- d", "{", "'", '"', "\\", "1e-3", "0x1F", ".nan", "2026-11-21", "a: b",
    "a #b", "\u2028", "\ufeff", " x ", "!!str",
    "&a",
    "*a", "%", "@", "`", "|", ">", "a.b", "true", "y", "off",
]  # fmt: skip


def test_written_settings_read_back_equal() -> None:
    features = dict.fromkeys(ODD, "text") | {"n": {"type": "category", "max_categories": 7}}
    settings = from_mapping(
        {
            "target": {"column": "\u2028 y", "positive": "1"},
            "features": features,
            "data": {"source": [name for name in ODD if name.strip()], "split": {"test": 1e-05, "by": "NO"}},
            "training": {"learning_rate": 3.1234567890123456e-7, "minutes": 5.0},
        }
    )
    assert loads(dumps(settings)) == settings


def test_any_names_read_back_equal() -> None:
    draw = random.Random(0)
    letters = [chr(c) for c in range(0x250)] + list("中文，：😀\u2028\u2029\ufeff\u200b")
    for _ in range(100):
        names = {"".join(draw.choices(letters, k=draw.randint(1, 12))): "number" for _ in range(5)}
        settings = from_mapping({"target": draw.choice([*names]), "features": names})
        assert loads(dumps(settings), needs_source=False) == settings


def test_a_python_mapping_has_the_same_checks() -> None:
    with pytest.raises(SettingsError, match=r"settings: training\.epochs: must be a whole number\. Got '5'\."):
        from_mapping({"target": "y", "training": {"epochs": "5"}})
    assert from_mapping({"target": "y", "data": {"source": Path("a.csv")}}).data.source == "a.csv"


@pytest.mark.parametrize(
    ("target", "rest", "said"),
    [
        ("{next_token: a}", "model: {copies: 3}", "'model.copies' is for a target column of a row, not next_token"),
        ("{column: a, type: dialogue}", "training: {class_weight: balanced}", "'training.class_weight' is for a"),
        ("{column: a, type: text}", "results: {language: b}", "'results.language' is for a target column of a row"),
        ("{column: a, type: embedding}", "results: {language: b}", "'results.language' is for a target column"),
        ("{next_token: a}", "model: {backbone: rnn}\ntraining: {optimizer: muon}", "muon is for the matrices"),
        ("{next_token: a}", "model: {from: b, adapter: lora}\ntraining: {optimizer: muon}", "muon is for the matrices"),
    ],
)
def test_a_setting_that_would_do_nothing(target: str, rest: str, said: str) -> None:
    (problem,) = problems(f"data: {{source: a.csv}}\ntarget: {target}\n{rest}\n")
    assert said in problem and problem.endswith("Remove it.")


def test_settings_are_frozen() -> None:
    settings = from_mapping({"target": "y"})
    with pytest.raises(ValueError, match="frozen"):
        settings.version = 1
    assert isinstance(settings, Settings)


def test_the_schema_for_editors_accepts_what_loads_and_refuses_what_does_not() -> None:
    """Judged by jsonschema: short forms, every key explained, and no key beside those."""
    schema = Settings.model_json_schema()
    check = jsonschema.Draft202012Validator(schema).is_valid
    head = {"data": {"source": "a.csv"}, "target": "y"}
    good = (
        {"features": {"a": "text", "b": {"type": "image", "range": [0, 1]}}},
        {"preprocess": {"redact": "all"}}, {"preprocess": {"redact": ["email"]}},
        {"preprocess": {"redact": {"kinds": ["email"], "key": "k"}}}, {"data": {"source": ["a.csv", "b.csv"]}},
        {"model": {"from": "minilm"}}, {"results": {"fairness": {"by": "sex"}}}, {"target": {"next_token": "text"}},
    )  # fmt: skip
    for more in good:
        assert from_mapping(head | more) and check(head | more), more
    for more in (
        {"features": {"a": "txt"}},
        {"trainin": {}},
        {"training": {"epochs": 0}},
        {"preprocess": {"redact": 5}},
    ):
        with pytest.raises(SettingsError):
            from_mapping(head | more)
        assert not check(head | more), more
    for part in (schema, *schema["$defs"].values()):
        for key, field in part["properties"].items():
            assert field.get("description") or "$ref" in field, f"{part['title']}.{key} has no words"
