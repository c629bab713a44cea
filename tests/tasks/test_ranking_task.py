"""Recommendation the whole way: events and histories, new items by their columns, what was taken, exact to the bit."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.killed import killed

import weft
from weft.cli import call
from weft.errors import CheckpointError, DataError, SettingsError, TooManyBadRows, UsageError
from weft.runs.ranking import RankingRun
from weft.tasks import ranking as module

TARGET = {"column": "item", "type": "ranking", "user": "user", "time": "when"}
FAST = {"model": {"width": 32, "layers": 1}, "training": {"epochs": 25, "learning_rate": 5e-3, "batch_rows": 32}}
RING = 24


def walks(users=120, seed=0):
    """Every user goes around a ring of items, one step at a time, and never comes back to an item."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        start, length = random.integers(RING), random.integers(4, 10)
        rows += [
            (f"u{user}", int(start + k) % RING, 1e9 + 3_600.0 * k, int(random.integers(1, 6))) for k in range(length)
        ]
    random.shuffle(rows)
    return [(str(u), int(i), float(w), int(s)) for u, i, w, s in rows]


def log(rows=None):
    user, item, when, stars = zip(*(rows or walks()), strict=True)
    return pa.table({"user": user, "item": item, "when": when, "stars": stars})


def as_histories(rows=None):
    """The same events, a user a row."""
    mine = {}
    for user, item, when, _ in sorted(rows or walks(), key=lambda r: r[2]):
        mine.setdefault(user, []).append({"item": item, "time": when})
    return pa.table({"who": list(mine), "had": list(mine.values())})


def figure(run, key="hit_at_1", model="weft"):
    return next(m for m in run.figures["models"] if m["key"] == model)["metrics"][key]["value"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RankingRun:
    return weft.train(log(), TARGET, tmp_path_factory.mktemp("ring") / "run", quiet=True,
                      features={"stars": "number"}, **FAST)  # fmt: skip


def test_the_next_step_is_learnt_and_stands_beside_simple_models(run):
    assert figure(run) > 0.9 > figure(run, model="popularity") and figure(run, "coverage") == 1.0
    assert {m["key"] for m in run.figures["models"]} == {"weft", "popularity", "neighbours", "markov"}
    assert not run.figures["ranking"]["taken"] and run.figures["differences"]["popularity"]["hit_at_10"]["low"] > 0
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What it recommends" in page and "never" in page and "Gini" in page and "It recommended &#39;" in page
    assert "weft predict" in (run.path / "README.md").read_text(encoding="utf-8")


def test_users_by_name_and_bare_histories_get_what_comes_next(run):
    last = {}
    for user, item, when, _ in walks():
        last[user] = max(last.get(user, (0.0, 0)), (when, item))
    users = pa.table({"user": ["u3", "u8", "u50"]})
    found = run.predict(users)["prediction"].to_pylist()
    assert [f[0] for f in found] == [str((last[u][1] + 1) % RING) for u in users["user"].to_pylist()]
    bare = run.predict(pa.table({"item": [["4", "5", "6"], ["21", "22", "23"], [], None]}))
    assert [bare["prediction"][i].as_py()[0] for i in (0, 1)] == ["7", "0"]
    assert len(bare["prediction"][2].as_py()) == len(bare["score"][2].as_py()) == 10
    assert bare["prediction"][2] == bare["prediction"][3]  # nothing is known of either
    first = run.recommend("u3", 2)[0]
    assert first["item"] == first["title"] == found[0][0] and first["score"] > 0.3
    timed = [{"item": 6, "time": 9.0}, {"item": 5, "time": 5.0}]
    assert run.recommend(timed, 1)[0]["item"] == "7"
    for mixed in (["4", {"item": "5"}, 6], [{"item": 4}, {"item": "5"}, "6"]):  # ids and events side by side
        assert run.recommend(mixed, 5) == run.recommend(["4", "5", "6"], 5)
    rated = [4, {"item": 5, "rating": 1.0}, "6"]
    assert run.recommend(rated) == run.recommend([{"item": "4"}, {"item": "5", "rating": 1.0}, {"item": "6"}])
    with pytest.raises(UsageError, match="of one type"):
        run.recommend([{"item": 4, "time": 1}, {"item": 5, "time": "later"}])
    loaded = weft.load(run.path)
    assert isinstance(loaded, RankingRun) and loaded.recommend(timed) == run.recommend(timed)


def test_what_a_user_had_comes_again_only_when_asked_and_never_more_than_there_are(run):
    had = [str(i) for i in range(10)]
    assert not set(had) & {r["item"] for r in run.recommend(had, 100)}
    assert len(run.recommend(had, 100)) == RING - 10 and len(run.recommend(had, 100, taken=True)) == RING
    assert run.recommend([*had, "nobody knows this"], 3) and len(run.recommend([str(i) for i in range(RING)])) == 0
    for odd in ([["4"]], {"item": 4}, None, 4.5, "nobody"):
        with pytest.raises(UsageError):
            run.recommend(odd)
    scores = [r["score"] for r in run.recommend([], 100)]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-5)


def test_evaluate_repeats_the_report_and_judges_other_data_by_each_last_event(run):
    found = run.evaluate(log())
    mine = run.figures["models"][0]["metrics"]
    assert {k: found["metrics"][k] for k in mine} == mine and found["part"].startswith("test events")
    other = run.evaluate(log(walks(40, seed=9)))
    assert other["rows"] == 40 and other["metrics"]["hit_at_1"]["value"] > 0.9


def test_histories_learn_as_events_do(run, tmp_path):
    found = weft.train(as_histories(), {"column": "had", "type": "ranking"}, tmp_path / "a", quiet=True, **FAST)
    assert abs(figure(found) - figure(run)) < 0.1 and found.recommend([5, 6], 1)[0]["item"] == "7"
    assert found.evaluate(as_histories())["metrics"] == found.figures["models"][0]["metrics"]
    with pytest.raises(UsageError, match="must know the user"):
        found.recommend("u3")
    named = weft.train(as_histories(), {"column": "had", "type": "ranking", "user": "who"}, tmp_path / "b", quiet=True,
                       **{**FAST, "training": {"epochs": 1}, "results": {"baselines": False}})  # fmt: skip
    assert len(named.recommend("u3", 2)) == 2
    assert named.predict(as_histories().select(["who"]))["prediction"].null_count == 0


def test_a_split_by_time_learns_from_the_early_events_only(tmp_path):
    rows = [(u, i, w + 1e5 * int(u[1:]), s) for u, i, w, s in walks()]
    settings = {"data": {"split": {"time": "when", "test": 0.2, "valid": 0.1}}, **FAST}
    found = weft.train(log(rows), TARGET, tmp_path / "a", quiet=True, **{**settings, "training": {"epochs": 2}})
    split = found.figures["ranking"]["split_words"]
    assert split.endswith("(the latest by 'when')") and found.figures["rows_judged"] == round(0.2 * len(rows))
    assert found.evaluate(log(rows))["metrics"] == found.figures["models"][0]["metrics"]
    apart = train(log(), tmp_path, data={"split": {"by": "user", "test": 0.2, "valid": 0.2}})
    assert apart.figures["ranking"]["split_words"].endswith("('user' together)")
    assert apart.evaluate(log())["metrics"] == apart.figures["models"][0]["metrics"]
    with pytest.raises(SettingsError, match="Remove the shares"):
        weft.train(log(), TARGET, tmp_path / "b", quiet=True, data={"split": {"test": 0.2}})


def picture(kind: str) -> bytes:
    """12 x 12 pixels of a shade of grey."""
    found = io.BytesIO()
    Image.new("L", (12, 12), {"tea": 20, "boat": 90, "stone": 160, "bird": 230}[kind]).save(found, "PNG")
    return found.getvalue()


@pytest.mark.parametrize(
    ("column", "given", "shown"), [("title", "text", "a fine {}".format), ("photo", "image", picture)]
)
def test_new_items_are_found_by_their_columns(tmp_path, column, given, shown):
    """Users keep to one kind of item; of each kind some items are only ever the last that a user had."""
    random = np.random.default_rng(0)
    kinds, old, new = ["tea", "boat", "stone", "bird"], 8, 3
    names = {k: [f"{k}-{n}" for n in range(old + new)] for k in kinds}
    rows, asked = [], []
    for user in range(240):
        kind = kinds[user % 4]
        had = list(random.choice(names[kind][:old], 4, replace=False))
        last = names[kind][old + user % new] if user % 2 else had.pop()
        asked.append(user % 2 == 1)
        rows += [(f"u{user:03}", item, k) for k, item in enumerate([*had, last])]
    items = [{"item": n, column: shown(k), "price": float(random.integers(9))} for k in kinds for n in names[k]]
    pq.write_table(pa.Table.from_pylist(items), tmp_path / "items.parquet")
    events = pa.table({n: [r[i] for r in rows] for i, n in enumerate(("user", "item", "when"))})
    settings = {
        "data": {"items": {"source": str(tmp_path / "items.parquet"), "features": {column: given}}},
        **FAST, "training": {"epochs": 25, "learning_rate": 5e-3, "batch_rows": 32},
    }  # fmt: skip
    found = weft.train(events, TARGET, tmp_path / "run", quiet=True, **settings)
    assert found.figures["ranking"]["cold"] == 4 * new
    hits = [names[kinds[u % 4]][old + u % new] in {r["item"] for r in found.recommend(
        [r[1] for r in rows if r[0] == f"u{u:03}"][:-1], 10)} for u in range(1, 240, 8)]  # fmt: skip
    assert np.mean(hits) > 0.5  # popularity finds none: they have no event
    first = found.recommend(["tea-0"], 3)[0]  # with its own title, or its id where there is none
    assert first["item"].partition("-")[0] in first["title"]
    without = weft.train(events, TARGET, tmp_path / "without", quiet=True,
                         **{**FAST, "training": {"epochs": 1}, "results": {"baselines": False}})  # fmt: skip
    assert without.figures["ranking"]["unknown"] == sum(asked)


def test_items_that_come_back_are_allowed_where_users_come_back(tmp_path):
    random, rows = np.random.default_rng(0), []
    for user in range(80):
        own = random.choice(30, 3, replace=False)
        rows += [(f"u{user}", int(own[k % 3]), float(k), 1) for k in range(9)]
    found = weft.train(log(rows), TARGET, tmp_path / "a", quiet=True, **FAST)
    assert found.figures["ranking"]["taken"] and figure(found) > 0.9
    assert {"recent", "frequent"} <= {m["key"] for m in found.figures["models"]}
    assert figure(found, "hit_at_10", "recent") == 1.0
    none = weft.train(log(rows), {**TARGET, "taken": False}, tmp_path / "b", quiet=True,
                      **{**FAST, "training": {"epochs": 1}})  # fmt: skip
    assert figure(none, "hit_at_10") == 0.0 and "(as set)" in none.figures["ranking"]["taken_words"]


@pytest.mark.parametrize(("backbone", "drawn"), [("transformer", False), ("rnn", True)])
def test_stopped_and_resumed_ends_with_the_same_bits(tmp_path, monkeypatch, backbone, drawn):
    if drawn:
        monkeypatch.setattr(module, "FULL", 5)
        monkeypatch.setattr(module, "DRAWN", 8)
    pipe = weft.Pipeline({
        "target": TARGET, "results": {"baselines": False},
        "model": {"backbone": backbone, "width": 16, "layers": 1}, "training": {"epochs": 3, "batch_rows": 16},
    })  # fmt: skip
    whole = pipe.run(log(walks(60)), tmp_path / "whole", quiet=True)
    assert whole.figures["model"]["objective"].startswith("8 drawn" if drawn else "every item")
    with killed(at=7):
        pipe.run(log(walks(60)), tmp_path / "again", quiet=True)
    again = pipe.run(log(walks(60)), tmp_path / "again", resume=True, quiet=True)
    assert (whole.path / "model.safetensors").read_bytes() == (again.path / "model.safetensors").read_bytes()
    for key in ("headline", "examples", "differences"):
        assert whole.figures[key] == again.figures[key], key


def test_the_commands_recommend_and_say_what_is_set_aside(run, tmp_path, capsys):
    users, out = tmp_path / "users.csv", tmp_path / "out.jsonl"
    users.write_text("user,city\nu1,Rome\nnobody,Oslo\nu2,Bonn\n,Kyiv\n")
    assert call(["predict", str(run.path), str(users), "-o", str(out), "--top", "3", "--keep", "city", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["predicted"], said["rejected"]) == (4, 2, 2)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["city"] for r in rows] == ["Rome", "Bonn"] and all(len(r["prediction"]) == 3 for r in rows)
    reasons = pq.read_table(said["rejected_output"])["reason"].to_pylist()
    assert "no user of the training" in reasons[1] and "is missing" in reasons[0]
    bare = tmp_path / "bare.csv"
    bare.write_text('item\n"[3, 4, 5]"\n"3,4,5"\n')
    assert call(["predict", str(run.path), str(bare), "-o", str(tmp_path / "o.csv"), "--top", "1", "--taken"]) == 0
    assert (tmp_path / "o.csv").read_text().count('"6') == 2
    assert call(["evaluate", str(run.path), str(users)]) == 1 and "no column 'item'" in capsys.readouterr().err
    assert call(["predict", str(run.path), str(users), "-o", str(out), "--top", "0"]) == 2
    assert call(["report", str(run.path)]) == 0
    pq.write_table(log(), tmp_path / "log.parquet")
    file = tmp_path / "weft.yaml"
    file.write_text(json.dumps({"data": {"source": str(tmp_path / "log.parquet")}, "target": TARGET}))
    assert call(["check", str(file)]) == 0 and "24 items" in capsys.readouterr().out
    pq.write_table(as_histories(), tmp_path / "h.parquet")
    assert call(["init", str(tmp_path / "h.parquet"), "-o", str(tmp_path / "init.yaml")]) == 0
    assert "target: {column: had, type: ranking}" in (tmp_path / "init.yaml").read_text()
    assert call(["check", str(tmp_path / "init.yaml")]) == 0


def train(table, folder, target=TARGET, **settings):
    fast = {**FAST, "training": {"epochs": 1}, "results": {"baselines": False}}
    return weft.train(table, target, folder / "run", quiet=True, **{**fast, **settings})


def test_odd_events(tmp_path):
    rows = [*walks(), ("once", 3, 1e9, 1), *walks()[:50]]  # a user of one event; fifty events are there twice
    table = log(rows).append_column("extra", pa.array(range(len(rows))))
    table = table.set_column(
        1, "item", pa.array([None if k < 5 else str(i) for k, i in enumerate(table["item"].to_pylist())])
    )
    found = train(table, tmp_path, data={"max_rejected": 0.02})
    assert found.figures["data"]["rejected"] == 5 and "is missing" in next(iter(found.figures["data"]["reasons"]))
    assert found.figures["ranking"]["repeated"] >= 45 and found.figures["ranking"]["once"] == 1
    assert found.recommend("once", 2)
    with pytest.raises(TooManyBadRows, match="item"):
        train(table, tmp_path / "b", data={"max_rejected": 0.001})


def test_all_events_of_one_user_and_a_catalogue_of_one_item(tmp_path):
    one = train(log([("u", k % 7, float(k), 1) for k in range(40)]), tmp_path / "a", results={"baselines": True})
    assert one.figures["rows_judged"] == 1 and one.recommend("u", 100)
    same = train(log([(f"u{k % 9}", 5, float(k), 1) for k in range(40)]), tmp_path / "b", results={"baselines": True})
    assert figure(same) == 1.0 and [r["item"] for r in same.recommend([5], 10)] == ["5"]


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ({"column": "item", "type": "ranking", "user": "usr"}, {}, "Did you mean 'user'"),
        (
            {"column": "item", "type": "ranking", "user": "user"},
            {"features": {"when": "time"}},
            "only 'item' itself and one",
        ),
        ({"column": "item", "type": "ranking"}, {}, "three events"),
        ({**TARGET, "type": "class"}, {}, "is for a target of type ranking"),
        (TARGET, {"model": {"from": "x"}}, "reads texts, not items"),
        (TARGET, {"data": {"items": {"source": "no.csv"}}}, "there is no such file"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, target, settings, message):
    with pytest.raises((SettingsError, DataError), match=message):
        weft.train(log(), target, tmp_path / "run", quiet=True, **settings)


def test_a_run_whose_catalogue_was_exchanged_is_refused(run, tmp_path):
    other = train(log(walks(50, seed=4)), tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in Path(run.path).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "catalogue.arrow").write_bytes((Path(other.path) / "catalogue.arrow").read_bytes())
    with pytest.raises(CheckpointError, match="changed"):
        weft.load(broken)
