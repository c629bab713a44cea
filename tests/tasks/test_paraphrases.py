"""Back-translation through tiny runs that have learnt a made-up language, against the same rules in Python."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

import weft
from weft.cli import call
from weft.data.split import TEST, TRAIN, VALID
from weft.errors import RunError, SettingsError
from weft.features.augment import Augmenter
from weft.features.columns import Columns
from weft.files import MANIFEST
from weft.preprocess.ingest import CleanRows
from weft.preprocess.letters import Letters
from weft.tasks import paraphrases
from weft.tasks.paraphrases import there_and_back, write_paraphrases
from weft.training_settings import AugmentSettings

HERE, THERE = ["ab", "cd", "ef", "gh", "ij"], ["春", "花", "秋", "月", "Ａ"]


def translated(text):
    """What the two runs have learnt together: the words turned around; one word comes back as it went."""
    return None if text is None else " ".join(text.split()[::-1])


def translator(out, words, others, turned):
    random = np.random.default_rng(0)
    chosen = [random.choice(5, random.integers(1, 4)) for _ in range(700)]
    data = pa.table(
        {
            "s": [" ".join(words[i] for i in x) for x in chosen],
            "t": [" ".join(others[i] for i in (x[::-1] if turned else x)) for x in chosen],
        }
    )
    run = weft.train(
        data, {"column": "t", "type": "text"}, out, quiet=True, features={"s": "text"},
        model={"width": 48, "layers": 2, "dropout": 0.0}, results={"baselines": False},
        training={"epochs": 16, "batch_rows": 32, "precision": "float32", "learning_rate": 0.004},
    )  # fmt: skip
    assert run.figures["models"][0]["metrics"]["exact_match"]["value"] > 0.95
    return run


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translators")
    return [translator(folder / "there", HERE, THERE, True), translator(folder / "back", THERE, HERE, False)]


def rows(count=600, seed=3):
    """Two text columns of one to three words; the class is told by the first word of ``a``."""
    random = np.random.default_rng(seed)
    a, b = ([" ".join(random.choice(HERE, random.integers(1, 4))) for _ in range(count)] for _ in "ab")
    part = random.choice(["train", "valid", "test"], count, p=[0.6, 0.2, 0.2])
    b = [None if i % 7 == 0 else text for i, text in enumerate(b)]
    return pa.table({"a": a, "b": b, "y": [text[:2] in ("ab", "cd") for text in a], "part": part})


def settings(through, **changes):
    change = {"back_translation": {"through": [str(run.path) for run in through], "share": 0.5}, **changes}
    return {
        "target": "y", "features": {"a": "text", "b": "text"}, "data": {"split": {"column": "part"}},
        "model": {"width": 16, "layers": 1}, "results": {"baselines": False},
        "training": {"epochs": 2, "batch_rows": 32, "augment": change},
    }  # fmt: skip


class Killed(Exception):
    pass


def kill(monkeypatch, module, name, calls):
    """The function ``name`` fails once it was called so often, as a machine does."""
    plain, done = getattr(module, name), []

    def dying(*arguments):
        done.append(1)
        if len(done) > calls:
            raise Killed
        return plain(*arguments)

    monkeypatch.setattr(module, name, dying)


@pytest.fixture(scope="module")
def work(through, tmp_path_factory):
    """The work of a run that was killed in its training: the table, its split, the texts that came back."""
    out = tmp_path_factory.mktemp("killed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weft.tasks.rows.fit", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            weft.Pipeline(settings(through)).run(rows(), out, quiet=True)
    return out


def found(out):
    with pa.memory_map(str(out / "work" / "paraphrases" / "paraphrases.arrow")) as source:
        return pa.ipc.open_file(source).read_all()


def test_training_texts_come_back_as_the_runs_have_learnt_and_no_others(work):
    table, parts, made = rows(), np.load(work / "split.npy"), found(work)
    assert [(parts == p).sum() > 60 for p in (TRAIN, VALID, TEST)] == [True] * 3 and made.num_rows == 600
    assert [["train", "valid", "test"][p] for p in parts] == table["part"].to_pylist()
    for name in "ab":
        own, other = table[name].to_pylist(), made[name].to_pylist()
        assert all(o is None for o, p in zip(other, parts, strict=True) if p != TRAIN)
        same = [t is None or t == translated(t) for t in own]
        assert 0.2 < np.mean(same) < 0.7
        right = [o == (None if s else translated(t)) for o, t, s, p in zip(other, own, same, parts, strict=True)
                 if p == TRAIN]  # fmt: skip
        assert np.mean(right) > 0.95, name  # the runs themselves err in a few


def test_the_order_of_the_runs_is_that_of_the_setting(through):
    texts = ["ab cd ef", "gh", None, "ij ab", "", "gh"]
    assert there_and_back(texts, through) == [translated(text) or None for text in texts]
    assert there_and_back(texts, through[::-1]) != [translated(text) or None for text in texts]


def test_what_says_less_than_the_text_leaves_the_text(through):
    """A text that is too long for a run, one that breaks off, an empty one."""
    there = through[0]
    room = there.pairing.source_room
    long = " ".join(HERE * room)
    assert there.source(long)[1] > 0 and there.source("ab cd")[1] == 0
    assert there.rewrite([long, "ab cd", long]) == [None, "花 春", None]
    assert there.rewrite([]) == []
    short = weft.load(there.path)
    short.__dict__["pairing"] = type(there.pairing)(**{**there.pairing.to_dict(), "target_room": 2})
    assert short.rewrite(["ab", "ab cd ef"])[1] is None
    assert short.generate("ab cd ef")[0].stopped == "length"


class Quiet(paraphrases.Silent):
    def __init__(self):
        self.warned = []

    def warn(self, text):
        self.warned.append(text)


def test_texts_that_stay_away_are_warned_of(through, tmp_path, work):
    """The way back is forgotten: Latin letters went, Chinese ones came."""
    clean, say = CleanRows(work / "work" / "clean.arrow", np.load(work / "split.npy")), Quiet()
    parts = np.load(work / "split.npy")
    made, facts = write_paraphrases(clean, parts, ["a"], Letters(), through[:1], tmp_path / "w", say)
    letters = {c for b in made.batches() for t in b.columns["a"].drop_null().to_pylist() for c in t}
    assert letters == {*"春花秋月A "}  # in the form of the table's texts
    assert facts["warning"] in say.warned and "another script" in facts["warning"] and facts["chrf"] < 1


def augmenter(work, share, seed=1, **more):
    columns = Columns.load(work)
    parts = np.load(work / "split.npy")
    clean = CleanRows(work / "work" / "clean.arrow", parts)
    other = CleanRows(work / "work" / "paraphrases" / "paraphrases.arrow", parts)
    change = AugmentSettings.model_validate({"back_translation": {"through": ["x"], "share": share}, **more})
    made = Augmenter(change, clean, columns, seed, other)
    codecs = {c.name: c for c in columns.codecs}
    own = {n: clean.take(np.arange(600), [n])[n].to_pylist() for n in "ab"}

    def texts(rows, epoch):
        codes = made({}, rows, epoch)
        return {n: [t and t.strip() for t in codecs[n].decode(codes[n])] for n in "ab"}

    turns = [
        r
        for r in np.flatnonzero(parts == TRAIN)
        if all(t is None or t != translated(t) for t in (own["a"][r], own["b"][r]))
    ]
    return texts, own, np.array(turns)


def test_the_share_of_the_rows_that_are_read_as_they_came_back(work):
    for share in (0.3, 1.0):
        texts, own, train = augmenter(work, share)
        read = np.array(
            [[t != own["a"][r] for r, t in zip(train, texts(train, e)["a"], strict=True)] for e in range(8)]
        )
        assert read.mean() == pytest.approx(share, abs=0.03)
        if share < 1:  # each epoch draws anew, each row by itself
            assert np.corrcoef(read[0], read[1])[0, 1] == pytest.approx(0, abs=0.2)
            assert read.mean(axis=0).max() < 1 and read.any(axis=0).mean() == pytest.approx(1 - 0.7**8, abs=0.05)


def test_a_row_comes_back_in_all_its_columns_by_seed_epoch_and_row_alone(work):
    texts, own, train = augmenter(work, 0.5)
    both = texts(train, 2)
    turned = [(a != own["a"][r], b != own["b"][r]) for r, a, b in zip(train, both["a"], both["b"], strict=True)]
    assert all(a == b for (a, b), r in zip(turned, train, strict=True) if own["b"][r] is not None)
    assert all(b is None for b, r in zip(both["b"], train, strict=True) if own["b"][r] is None)
    assert texts(train[::-1].copy(), 2)["a"] == both["a"][::-1] and texts(train[7:8], 2)["a"] == both["a"][7:8]
    assert texts(train, 3)["a"] != both["a"] and augmenter(work, 0.5, seed=2)[0](train, 2)["a"] != both["a"]
    watched = np.flatnonzero(np.load(work / "split.npy") != TRAIN)
    # in folds some of these are learnt from, as they are
    assert texts(watched, 2)["a"] == [own["a"][r] for r in watched]
    shorter = augmenter(work, 1.0, delete=0.5)[0](train, 0)["a"]  # the other changes come after it
    assert np.mean([len(t.split()) for t in shorter]) < 0.8 * np.mean([len(own["a"][r].split()) for r in train])
    assert {w for t in shorter for w in t.split()} == set(HERE)


def test_killed_while_translating_and_resumed_ends_with_the_same_bits(through, tmp_path, monkeypatch):
    monkeypatch.setattr(paraphrases, "PIECE", 100)
    monkeypatch.setattr(paraphrases, "JOINED", 4)
    told = settings(through, delete=0.1)
    whole = weft.Pipeline(told).run(rows(), tmp_path / "whole", quiet=True)
    for times in (1, 2):
        with monkeypatch.context() as patch:
            kill(patch, paraphrases, "there_and_back", 4)  # once a column, so two of six pieces are made
            with pytest.raises(Killed):
                weft.Pipeline(told).run(rows(), tmp_path / "killed", resume=times > 1, quiet=True)
        assert len(list((tmp_path / "killed" / "work" / "paraphrases").glob("0*.arrow"))) == 2 * times
    with monkeypatch.context() as patch:  # the others are not made again
        kill(patch, paraphrases, "there_and_back", 4)
        resumed = weft.Pipeline(told).run(rows(), tmp_path / "killed", resume=True, quiet=True)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    facts = resumed.figures["back_translation"]
    assert facts == whole.figures["back_translation"]
    assert facts["texts"] == sum(t is not None for n in "ab" for t in rows().filter(
        pa.compute.equal(rows()["part"], "train"))[n].to_pylist())  # fmt: skip
    assert facts["samples"][0][1] == translated(facts["samples"][0][0]) and 0 < facts["changed"] < facts["texts"]
    page = (resumed.path / "report.html").read_text()
    assert facts["words"] in page and facts["samples"][0][1] in page


def test_it_changes_the_training_only(through, tmp_path):
    """The model that reads other words differs; the rows that are watched and judged are the same."""
    plain = settings(through)
    del plain["training"]["augment"]
    one, other = (weft.Pipeline(s).run(rows(), tmp_path / n, quiet=True)
                  for s, n in ((plain, "plain"), (settings(through), "back")))  # fmt: skip
    assert (one.path / "model.safetensors").read_bytes() != (other.path / "model.safetensors").read_bytes()
    assert (one.path / "columns.json").read_bytes() == (other.path / "columns.json").read_bytes()
    assert np.array_equal(np.load(one.path / "split.npy"), np.load(other.path / "split.npy"))
    assert one.figures["back_translation"] is None


def test_other_runs_in_their_place_are_refused(through, tmp_path, monkeypatch):
    monkeypatch.setattr(paraphrases, "PIECE", 100)
    told = settings(through)
    with monkeypatch.context() as patch:
        kill(patch, paraphrases, "there_and_back", 2)
        with pytest.raises(Killed):
            weft.Pipeline(told).run(rows(), tmp_path / "run", quiet=True)
    manifest = through[1].path / MANIFEST
    stored = manifest.read_bytes()
    try:
        manifest.write_text(json.dumps(json.loads(stored)))  # the same sums, other bytes
        with pytest.raises(RunError, match="resumes with the translation runs it began with"):
            weft.Pipeline(told).run(rows(), tmp_path / "run", resume=True, quiet=True)
    finally:
        manifest.write_bytes(stored)


def test_check_says_how_many_texts_and_how_long(through, tmp_path, capsys):
    pq.write_table(rows(), tmp_path / "rows.parquet")
    told = settings(through)
    told["data"]["source"] = str(tmp_path / "rows.parquet")
    (tmp_path / "w.yaml").write_text(json.dumps(told))
    assert call(["check", str(tmp_path / "w.yaml"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["back_translation"]
    assert made["texts"] == round(0.9 * (600 + rows()["b"].length() - rows()["b"].null_count)) and made["seconds"] > 0
    assert call(["check", str(tmp_path / "w.yaml")]) == 0
    assert "training texts go through 2 runs once, in about" in capsys.readouterr().out


def test_runs_that_do_not_translate(through, tmp_path):
    classes = weft.train(rows(120), "y", tmp_path / "classes", quiet=True, features={"a": "text", "b": "off"},
                         model={"width": 16, "layers": 1, "copies": 1}, training={"epochs": 1})  # fmt: skip
    both = weft.train(
        pa.table({"s": ["ab"] * 300, "u": ["cd"] * 300, "t": ["ef"] * 300}), {"column": "t", "type": "text"},
        tmp_path / "both", quiet=True, features={"s": "text", "u": "text"}, model={"width": 16, "layers": 1},
        training={"epochs": 1}, results={"baselines": False},
    )  # fmt: skip
    half = tmp_path / "half"
    half.mkdir()
    place = r"^training.augment.back_translation.through: "
    for path, words in (
        (tmp_path / "nowhere", "must be the folder of a run. There is no such folder"),
        (half, "was not finished"),
        (classes.path, "must be runs that write a text from a text.*classes, a run of another target"),
        (both.path, "must be runs that write from one text.*'s', 'u'"),
    ):
        told = settings(through)
        told["training"]["augment"]["back_translation"]["through"] = [str(through[0].path), str(path)]
        with pytest.raises(SettingsError, match=place + ".*" + words):
            weft.Pipeline(told).run(rows(), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{through: []}", "at least 1 item"),
        ("{share: 0.5}", "through is missing|through: is missing"),
        ("{through: [a, b], share: 0}", "greater than 0"),
        ("{through: [a, b], share: 1.5}", "less than or equal to 1"),
        ("{throuh: [a, b]}", "Did you mean 'through'"),
        ("[a, b]", "must be a mapping"),
    ],
)
def test_settings_that_cannot_be(given, words):
    from weft.config import loads

    with pytest.raises(SettingsError, match=words):
        loads(f"data: {{source: a.csv}}\ntarget: y\ntraining: {{augment: {{back_translation: {given}}}}}\n", "w.yaml")
