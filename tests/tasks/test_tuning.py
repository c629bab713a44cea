"""Better settings by trials: what is drawn, given up, kept and resumed; and the trainings of each task beneath it."""

import json
import math

import numpy as np
import optuna
import pytest
from tests.killed import killed
from tests.tables import numeric
from tests.tasks import test_pair_task, test_ranking_task
from tests.texts import sentences

import weft
from weft import config
from weft.cli import call
from weft.errors import SettingsError, TrainingError
from weft.models.transformer import TransformerConfig
from weft.progress import Silent
from weft.runs.run import Run
from weft.tasks.tuning import Heard, open_names, search
from weft.training.loop import Recipe

RECIPE = Recipe(epochs=1, batch_rows=32, learning_rate=1e-3, weight_decay=0.01, patience=1, average=0, bfloat16=False,
                seed=0)  # fmt: skip
SHAPE = TransformerConfig(width=32, layers=2, heads=2)
LABEL = {"features": {"y": "off"}, "target": "label"}


def settings(training, **more):
    return config.from_mapping({"data": {"source": "t.csv"}, "target": "y", **more, "training": training})


def tried(tmp_path, loss, training=None, **more):
    """What a search finds whose trainings come to ``loss`` (settings); and the settings that it tried."""
    seen = []

    def attempt(given, say):
        seen.append(given)
        value = loss(given)
        for done in (0, 0.25, 0.5, 0.75, 1):
            say.checked(done, value * (2 - done))
        return RECIPE, SHAPE

    asked = settings({"search": {"trials": 20}, **(training or {})}, **more)
    found, facts = search(asked, attempt, tmp_path / "trials.log", Silent())
    return found, facts, seen


def rate(given):
    return given.training.learning_rate or RECIPE.learning_rate


def valley(given):
    """Lowest at three times the rate that is the default; a seed changes little."""
    return 1 + math.log(rate(given) / 3e-3) ** 2 + 0.01 * given.training.seed


def noise(given):
    return 1 + np.random.default_rng([given.training.seed, int(1e9 * rate(given))]).random()


def test_a_valley_is_found_and_kept_and_what_mattered_is_told(tmp_path):
    found, facts, _ = tried(tmp_path, valley)
    assert facts["kept"] == facts["best"] > 0 and found.training.search is None
    assert abs(math.log(found.training.learning_rate / 3e-3)) < 0.25 * math.log(3)
    assert facts["trials"][0]["loss"] == pytest.approx(1 + math.log(3) ** 2)
    assert len(facts["again"]) == 3 and all(ours < others for ours, others in facts["again"])
    assert max(facts["mattered"], key=facts["mattered"].get) == "learning_rate"
    assert sum(facts["mattered"].values()) == pytest.approx(1, abs=0.01) and facts["mattered"]["learning_rate"] > 0.5
    assert "ahead every time" in facts["lines"][-1]


def test_what_is_best_by_chance_is_not_kept(tmp_path):
    found, facts, seen = tried(tmp_path, noise, {"seed": 2})
    assert facts["best"] > 0 and facts["trials"][facts["best"]]["loss"] < facts["trials"][0]["loss"]
    assert facts["kept"] == 0 and found == settings({"seed": 2}) and "within chance" in facts["lines"][-1]
    assert [s.training.seed for s in seen if s.training.seed != 2] == [3, 3, 4, 4, 5, 5][: 2 * len(facts["again"])]


def test_defaults_that_are_the_best_stay_without_more_trainings(tmp_path):
    found, facts, seen = tried(tmp_path, lambda given: 1 + abs(math.log(rate(given) / 1e-3)))
    assert facts["best"] == facts["kept"] == 0 and not facts["again"] and found.training.learning_rate is None
    assert {s.training.seed for s in seen} == {0}


def test_trials_are_given_up_where_the_median_of_the_finished_was_better(tmp_path):
    _, facts, seen = tried(tmp_path, valley, {"search": {"trials": 25, "over": ["learning_rate", "dropout"]}})
    assert len(facts["trials"]) == 25
    finished, states = [], []
    for number, trial in enumerate(facts["trials"]):
        own = valley(seen[number])
        states.append(trial["state"])
        # rung 3 of 10, the first at which one may be given up, is told by the look at a quarter
        if trial["state"] == "given up":
            assert len(finished) >= 5 and own * 1.75 > np.median([1.75 * f for f in finished])
            assert "worse than most at 30%" in trial["why"]
        else:
            assert trial["loss"] == pytest.approx(own) and (len(finished) < 5 or own <= np.median(finished))
            finished.append(own)
    assert 3 < states.count("given up") < 20 and states[:5] == ["finished"] * 5


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    whole = tried(tmp_path, valley)[1]
    folder, calls = tmp_path / "stopped", iter(range(100))
    folder.mkdir()

    def stops(given):
        if next(calls) in (0, 4, 9, 15, 25, 28):  # the first, some, and of those with other seeds
            raise KeyboardInterrupt
        return valley(given)

    for _ in range(6):
        with pytest.raises(KeyboardInterrupt):
            tried(folder, stops)
        if (journal := folder / "trials.log").exists():
            journal.write_bytes(journal.read_bytes() + b'{"op_code": 6, "tri')  # the disk was not done
        (folder / "trials.log.lock").symlink_to(journal)  # nor the one who held it
    again = tried(folder, stops)[1]
    assert [t | {"seconds": 0} for t in again["trials"]] == [t | {"seconds": 0} for t in whole["trials"]]
    assert (again["kept"], again["again"], again["mattered"]) == (whole["kept"], whole["again"], whole["mattered"])
    log = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    assert optuna.load_study(study_name="weft", storage=log).best_value == whole["trials"][whole["best"]]["loss"]


def test_other_seeds_draw_other_trials_and_the_first_is_the_file(tmp_path):
    drawn = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(drawn))
        folder.mkdir()
        _, facts, seen = tried(folder, valley, {"search": {"trials": 4}, "seed": seed})
        assert seen[0] == settings({"seed": seed})
        drawn.append([t["settings"] for t in facts["trials"]])
    assert drawn[0] == drawn[1] and drawn[0][1:] != drawn[2][1:]


def test_a_trial_that_fails_is_told_and_the_first_fails_the_run(tmp_path):
    def breaks(given):
        if rate(given) > 1.5e-3:
            raise TrainingError("the loss must be finite")
        return valley(given)

    facts = tried(tmp_path, breaks)[1]
    failed = [t for t in facts["trials"] if t["state"] == "failed"]
    assert failed and all(t["why"] == "the loss must be finite" and t["loss"] is None for t in failed)
    assert len(facts["trials"]) == 20

    def never(given):
        raise TrainingError("no")

    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(TrainingError, match="no"):
        tried(other, never)


def test_minutes_end_the_search(tmp_path):
    facts = tried(tmp_path, valley, {"search": {"trials": 20, "minutes": 1e-9}})[1]
    assert len(facts["trials"]) == 1 and facts["kept"] == 0


def test_what_was_drawn_before_is_not_trained_again(tmp_path):
    _, facts, seen = tried(tmp_path, lambda given: 1.0, {"search": {"trials": 9, "over": ["layers"]}})
    kinds = {t["settings"]["layers"] for t in facts["trials"][1:]}
    assert kinds <= {1, 2, 3} and len(seen) == 1 + len(kinds)
    assert any(t["why"].startswith("the same as trial") for t in facts["trials"])


def test_rungs_hold_the_best_loss_until_the_next_look_and_the_mean_over_copies():
    told = []
    heard = Heard(Silent(), "", lambda rung, value: told.append((rung, value)))
    for done, loss in ((0, 8.0), (0.25, 6.0), (0.5, 7.0), (0, 4.0), (0.5, 2.0), (1, 1.0)):
        heard.checked(done, loss)
    first = [8, 8, 8, *[6] * 7]  # it ended early
    assert [value for _, value in told] == [*first, *[5] * 5, *[4] * 5] and heard.loss == 3.5
    assert [rung for rung, _ in told] == list(range(20)) and dict(told) == heard.values


@pytest.mark.parametrize(
    ("training", "more", "words"),
    [
        ({"search": {"over": ["learning_rat"]}}, {}, "Did you mean 'learning_rate'?"),
        ({"search": {"trials": 1}}, {}, "search.trials: must be"),
        ({"search": {"over": []}}, {}, "at least 1 item"),
        ({"search": {"over": ["width"]}}, {"model": {"width": 32}}, "looked for here (the file says 32)"),
        ({"search": {"over": ["width"]}}, {"model": {"from": "x"}}, "the checkpoint says 'width' itself"),
        ({"search": {"over": ["mixup", "consistency"]}}, {}, "exclude each other"),
        ({"search": {"over": ["label_smoothing"]}}, {}, "label_smoothing cannot be looked for here"),
        ({"search": {"over": ["batch_rows"]}}, {"target": {"column": "y", "type": "embedding"}}, "batch_rows cannot"),
        ({"search": {}, "privacy": {"epsilon": 1}}, {}, "every trial would spend epsilon anew"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(training, more, words):
    with pytest.raises(SettingsError) as error:
        open_names(settings(training, **more))
    assert words in str(error.value)


def test_what_is_open_depends_on_the_task_and_on_the_file():
    names = open_names(settings({"search": {}}))
    assert names == [
        "learning_rate", "weight_decay", "dropout", "width", "layers", "batch_rows", "consistency",
    ]  # fmt: skip
    given = settings({"search": {}, "mixup": 0.2, "weight_decay": 0.1}, model={"from": "x"})
    assert open_names(given) == ["learning_rate", "dropout", "batch_rows"]
    text = settings({"search": {}}, target={"column": "y", "type": "text"})
    assert open_names(text)[-1] == "label_smoothing" and "consistency" not in open_names(text)
    assert "batch_rows" not in open_names(settings({"search": {}}, target={"column": "y", "type": "embedding"}))


SMALL = {"model": {"width": 16, "layers": 1, "copies": 1}, "results": {"explain": "off"}}
TRAINING = {"epochs": 4, "batch_rows": 32, "search": {"trials": 4, "over": ["learning_rate", "dropout"]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("tuned")
    return weft.Pipeline({**SMALL, **LABEL, "training": TRAINING}).run(numeric(200), folder / "run", quiet=True)


def weights(run):
    return (run.path / "model.safetensors").read_bytes()


def test_the_model_is_the_one_that_the_plain_file_trains(run, tmp_path):
    plain = config.load(run.path / "best.yaml", needs_source=False)
    assert plain.training.search is None and plain == run.settings and plain.model.width == 16
    other = weft.pipeline.run(plain, weft.data.table.Table.of(numeric(200)), tmp_path / "run")
    assert weights(other) == weights(run)


def test_the_loss_of_a_trial_is_that_of_a_run_with_its_settings(run, tmp_path):
    trial = run.figures["search"]["trials"][1]
    training = {"epochs": 4, "batch_rows": 32, "learning_rate": trial["settings"]["learning_rate"]}
    model = {**SMALL["model"], "dropout": trial["settings"]["dropout"]}
    other = weft.Pipeline({**LABEL, **SMALL, "model": model, "training": training}).run(
        numeric(200), tmp_path / "run", quiet=True
    )
    records = map(json.loads, (other.path / "metrics.jsonl").read_text().splitlines())
    assert min(r["valid_loss"] for r in records if "valid_loss" in r) == pytest.approx(trial["loss"], abs=2e-5)


def test_a_run_that_was_killed_in_a_trial_ends_as_one_that_was_not(run, tmp_path):
    pipeline = weft.Pipeline({**SMALL, **LABEL, "training": TRAINING})
    out = tmp_path / "run"
    with killed(at=50, saved=45):  # in the third trial
        pipeline.run(numeric(200), out, quiet=True)
    assert (out / "trials.log").exists() and not (out / "model.safetensors").exists()
    again = pipeline.run(numeric(200), out, quiet=True, resume=True)
    own, other = (
        [{k: v for k, v in t.items() if k != "seconds"} for t in r.figures["search"]["trials"]] for r in (run, again)
    )
    assert own == other and weights(run) == weights(again)
    assert (run.path / "best.yaml").read_text() == (again.path / "best.yaml").read_text()


def test_the_report_and_check_tell_of_it(run, tmp_path, capsys):
    page = (run.path / "report.html").read_text()
    found = run.figures["search"]
    assert "The settings that were tried" in page and all(line in page.replace("&#39;", "'") for line in found["lines"])
    assert page.count("<tr") > len(found["trials"])
    numeric(200).to_pandas().to_csv(tmp_path / "t.csv")
    text = f"data: {{source: {tmp_path / 't.csv'}}}\ntarget: label\n"
    (tmp_path / "weft.yaml").write_text(text)
    assert call(["check", str(tmp_path / "weft.yaml"), "--set", "training.search.trials=5"]) == 0
    assert "at most 12 trainings such as this one: 5 trials of 'learning_rate'" in capsys.readouterr().out


SEARCH = {"trials": 2, "over": ["learning_rate"]}


@pytest.mark.parametrize("task", ["ranking", "embedding", "next_token"])
def test_every_task_trains_by_what_it_finds(task, tmp_path):
    """... and trials leave what the last training begins with as it was."""
    given = {"ranking": test_ranking_task, "embedding": test_pair_task}.get(task)
    if given is not None:
        table, fast = given.log() if task == "ranking" else given.table(), given.FAST
        target, training = given.TARGET, {"epochs": 2, "batch_rows": 32}
        rest = {k: v for k, v in fast.items() if k != "training"}
    else:
        table = {"text": sentences(200)}
        target, training, shape = {"next_token": "text"}, {"epochs": 1, "batch_rows": 32}, {"width": 24, "layers": 1}
        rest = {"features": {"text": {"type": "text", "vocabulary": 300, "max_tokens": 24}}}
        weft.train(table, target, tmp_path / "begun", quiet=True, model=shape, training=training, **rest)
        rest = {"model": {"from": str(tmp_path / "begun")}}
    run = weft.train(table, target, tmp_path / "run", quiet=True, training={**training, "search": SEARCH}, **rest)
    assert [t["state"] for t in run.figures["search"]["trials"]] == ["finished", "finished"]
    table = weft.data.table.Table.of(table)
    plain = weft.pipeline.run(config.load(run.path / "best.yaml", needs_source=False), table, tmp_path / "plain")
    assert weights(plain) == weights(run)
