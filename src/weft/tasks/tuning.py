"""Better settings of the training and the model, looked for by trials on the validation rows.

Trial 0 is of the settings as they are. The others are drawn where the trials before them did well (a tree of Parzen
estimators, Bergstra 2011), and are given up when they are worse than the median of those before them at the same part
of their training. The best of many is best by chance too: it has to do it again with other seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from weft import config
from weft.config import Settings
from weft.errors import SettingsError, UsageError, WeftError, listing
from weft.files import write_whole
from weft.models.backbone import BackboneConfig
from weft.progress import Bar, Silent, duration, minutes_in_words, over_in_words
from weft.training.loop import Recipe
from weft.training_settings import Searched

TRIALS_FILE = "trials.log"
"""optuna's journal: one line an event, which `optuna-dashboard` draws."""
RUNGS, WARM = 10, 3
"""Parts of a training at whose ends trials are compared, and those in which none is given up."""
STARTUP = 5
"""Trials that are drawn at random, and finished ones before any is given up."""
AGAIN = 3
"""Trainings with other seeds, each of the best and of the settings as they were: that all of the one are better than
all of the others has a chance of 1 in 20 where they are alike (6 choose 3)."""
WORST = 1e30
"""The loss of a training that failed; JSON has no infinity."""
ENOUGH = 8
"""Trials from which on it is said which settings mattered."""
Attempt = Callable[[Settings, Silent], tuple[Recipe, BackboneConfig]]
_PROBES = {
    "learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.1, "width": 64, "layers": 2, "batch_rows": 32,
    "label_smoothing": 0.1, "consistency": 1.0, "mixup": 0.1, "column_dropout": 0.1,
}  # fmt: skip
_WHEN_NAMED = ("mixup", "column_dropout")


def search(settings: Settings, attempt: Attempt, journal: Path, say: Silent) -> tuple[Settings, dict[str, Any]]:
    """The settings to train by, without ``search``, and what ``report.json`` says of how they were found.

    Args:
        attempt: trains by some settings, telling the validation losses; what it then knows of the training.
        journal: where trials are kept; those that are there count, so that a search that was stopped goes on.

    Raises:
        UsageError: optuna is not there.
        SettingsError: as :func:`open_names`.
        WeftError: what training by the settings as they are raises.
    """
    return _Search(settings, attempt, journal, say).run()


def open_names(settings: Settings) -> list[str]:
    """What a search looks for: as named, else all that the file leaves open and the task has.

    Raises SettingsError where what is named is given already, or not to be had here, and where nothing is open.
    """
    asked = settings.training.search
    assert asked is not None
    plain, problems = _without(settings), []
    found: list[str] = []
    for name in asked.over or get_args(Searched):
        try:
            given = getattr(plain.model if name in ("dropout", "width", "layers") else plain.training, name)
            if given is not None:
                raise SettingsError([f"the file says {given}"])
            if name == "layers" and plain.model.from_ is not None:
                raise SettingsError(["the checkpoint has its own"])
            if name == "batch_rows" and settings.target.task == "embedding":
                raise SettingsError(["the loss compares each text with those of its step, so that it says less"])
            lay_over(plain, {n: _PROBES[n] for n in (*(found if asked.over else ()), name)})
        except SettingsError as error:
            problems.append(
                f"training.search.over: {name} cannot be looked for here ({error.problems[0].strip('.')}). Remove one."
            )
        else:
            if asked.over or name not in _WHEN_NAMED:
                found.append(name)
    if asked.over and problems:
        raise SettingsError(problems)
    if not found:
        raise SettingsError(["training.search: must have a setting to look for. The file gives all. Leave some out."])
    library()
    return found


def lay_over(settings: Settings, found: dict[str, Any]) -> Settings:
    """The settings with those that were found. Raises SettingsError where they do not go together."""
    places = {name: "model" if name in ("dropout", "width", "layers") else "training" for name in found}
    changes = [f"{places[name]}.{name}={value!r}" for name, value in found.items()]
    return config.loads(config.dumps(settings), "settings", changes, needs_source=False)


def library() -> Any:
    """optuna. Raises UsageError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "training.search: needs the package optuna. Got none. Run: python -m pip install 'weft[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _without(settings: Settings) -> Settings:
    return settings.model_copy(update={"training": settings.training.model_copy(update={"search": None})})


class GivenUp(Exception):
    """A trial that is not worth its end; why."""


class Heard(Silent):
    """Hears the losses of the trainings of one trial (a model may have several copies), and says how far it is.

    ``values``: at each rung the mean over the trainings so far of the best loss; ``tell`` hears of each.
    """

    def __init__(self, say: Silent, label: str, tell: Callable[[int, float], None] = lambda rung, value: None):
        self._say, self._label, self._tell = say, label, tell
        self._best: list[float] = []
        self.values: dict[int, float] = {}
        self.began = time.monotonic()

    @property
    def loss(self) -> float:
        return math.fsum(self._best) / len(self._best)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def checked(self, done: float, loss: float) -> None:
        if done == 0:  # the next training begins
            self._fill(RUNGS * len(self._best))
            self._best.append(loss)
        first = RUNGS * (len(self._best) - 1)
        self._fill(first + min(RUNGS, math.ceil(done * RUNGS)))  # of rungs gone by without a look
        self._best[-1] = min(self._best[-1], loss)
        self._fill(first + min(RUNGS, math.floor(done * RUNGS) + 1))

    def end(self) -> None:
        """Of a training that ended early the best loss stays."""
        self._fill(RUNGS * len(self._best))

    def _fill(self, to: int) -> None:
        for rung in range(len(self.values), to):
            self.values[rung] = self.loss
            self._tell(rung, self.loss)

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        with self._say.bar(self._label if label == "training" else f"{self._label}, {label}", total) as bar:
            yield bar


class _Search:
    def __init__(self, settings: Settings, attempt: Attempt, journal: Path, say: Silent):
        assert settings.training.search is not None
        self.names, self.optuna = open_names(settings), library()
        self.asked, self.plain = settings.training.search, _without(settings)
        self.attempt, self.say = attempt, say
        self.states = self.optuna.trial.TrialState
        self.study = _opened(self.optuna, journal)

    def run(self) -> tuple[Settings, dict[str, Any]]:
        most, minutes = self.asked.trials, self.asked.minutes
        limit = f" in {minutes_in_words(minutes)}" if minutes else ""
        self.say.step("search", f"at most {most:,} trials{limit}, of {listing(self.names, 20)}")
        if self.trials:
            self.say.line(f"{len(self.trials):,} trials are there already")
        else:
            self._first()
        while len(self.trials) < most and self._left() > 0:
            self._next()
        trials = self.trials
        best = min((n for n, t in enumerate(trials) if t.state == self.states.COMPLETE), key=lambda n: trials[n].value)
        again = self._again(best) if best else []
        kept = best if len(again) == AGAIN and _apart(again) else 0
        lines = list(self._in_words(best, again))
        for line in lines:
            self.say.line(line)
        facts = {
            "trials": [self._facts(t) for t in trials], "best": best, "kept": kept, "lines": lines,
            "again": [[pair[0], pair[1]] for pair in again], "mattered": self._mattered(),
        }  # fmt: skip
        return self._settings(kept), facts

    @property
    def trials(self) -> list[Any]:
        """Those that ended, in their order; not those that were killed."""
        ended = [t for t in self.study.trials if t.state.is_finished()]
        return [t for t in ended if t.state != self.states.FAIL or t.user_attrs.get("why")]

    def _left(self) -> float:
        """Seconds."""
        return 60 * (self.asked.minutes or math.inf) - math.fsum(t.user_attrs["seconds"] for t in self.trials)

    def _first(self) -> None:
        """The settings as they are; what they come to says where to look."""
        heard = Heard(self.say, "trial 0")
        recipe, backbone = self.attempt(self.plain, heard)
        heard.end()
        space, params = self._space(recipe, backbone)
        self.study.add_trial(
            self.optuna.trial.create_trial(
                value=heard.loss, params=params, distributions=space, intermediate_values=heard.values,
                user_attrs={"seconds": heard.seconds},
            )
        )  # fmt: skip
        self._say_last()

    def _next(self) -> None:
        before, left = self.trials, self._left()
        # by the number of trials that ended: a search that was stopped draws what it would have drawn
        seed = (10_007 * self.plain.training.seed + len(before)) % 2**32
        self.study.sampler = self.optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
        trial = self.study.ask(before[0].distributions)

        def tell(rung: int, value: float) -> None:
            trial.report(value, rung)
            if heard.seconds > left:
                raise GivenUp(over_in_words(self.asked.minutes or 0))
            if trial.should_prune():
                raise GivenUp(f"worse than most at {(rung % RUNGS) / RUNGS:.0%} of a training")

        heard = Heard(self.say, f"trial {len(before)} of {self.asked.trials - 1}", tell)
        twin = next((n for n, t in enumerate(before) if n and _rounded(t.params) == _rounded(trial.params)), None)
        state, why, value = self.states.COMPLETE, "", None
        try:
            if twin is None:
                self.attempt(lay_over(self.plain, _rounded(trial.params)), heard)
                heard.end()
                value = heard.loss
            else:
                state, why, value = before[twin].state, f"the same as trial {twin}", before[twin].value
        except GivenUp as up:
            state, why = self.states.PRUNED, str(up)
        except WeftError as error:
            state, why = self.states.FAIL, str(error)
        trial.set_user_attr("seconds", heard.seconds)
        trial.set_user_attr("why", why)
        self.study.tell(trial, value if state == self.states.COMPLETE else None, state)
        self._say_last()

    def _settings(self, number: int, **more: Any) -> Settings:
        """Those of a trial."""
        return lay_over(self.plain, (_rounded(self.trials[number].params) if number else {}) | more)

    def _again(self, best: int) -> list[list[float]]:
        """Losses of the best and of the settings as they were, each pair with another seed; until they overlap."""
        found = self.study.user_attrs.get("again", [])
        while len(found) < AGAIN and _apart(found):
            seed, pair = (self.plain.training.seed + 1 + len(found)) % 2**31, []
            for number, name in ((best, f"trial {best}"), (0, "trial 0")):
                heard = Heard(self.say, f"{name} with other seeds, {len(found) + 1} of {AGAIN}")
                try:
                    self.attempt(self._settings(number, seed=seed), heard)
                    pair.append(heard.loss)
                except WeftError:  # it may fail with one seed alone
                    pair.append(WORST)
            found = [*found, pair]
            self.study.set_user_attr("again", found)
        return found

    def _space(self, recipe: Recipe, backbone: BackboneConfig) -> tuple[dict[str, Any], dict[str, Any]]:
        """Where each setting is looked for, around what it is now; and what it is now."""
        found = self.optuna.distributions
        whole, real, some = found.IntDistribution, found.FloatDistribution, found.CategoricalDistribution
        width, layers, rows = backbone.width, backbone.layers, recipe.batch_rows
        rate, decay = recipe.learning_rate, recipe.weight_decay or 0.01
        half = width // 2 if width < 128 else max(64, width // 2 // 64 * 64)  # heads of 32 or 64 still fit
        heads = self.plain.model.heads or 1
        smoothing = 0.1 if self.plain.target.task == "text" and self.plain.model.from_ is None else 0.0
        spaces = {
            "learning_rate": (real(rate / 5, min(1.0, 5 * rate), log=True), rate),
            "weight_decay": (real(decay / 10, 10 * decay, log=True), decay),
            "dropout": (real(0.0, 0.4, step=0.05), round(20 * min(0.4, backbone.dropout or 0.1)) / 20),
            "width": (some([w for w in (half, width, 2 * width) if w >= 8 and w % heads == 0]), width),
            "layers": (whole(max(1, layers // 2), layers + max(1, layers // 2)), layers),
            "batch_rows": (some(sorted({max(1, rows // 2), rows, 2 * rows})), rows),
            "label_smoothing": (real(0.0, 0.2, step=0.05), smoothing),
            "consistency": (some([0.0, 0.5, 1.0, 2.0]), 0.0),
            "mixup": (real(0.0, 0.4, step=0.1), 0.0),
            "column_dropout": (real(0.0, 0.4, step=0.1), 0.0),
        }
        return {n: spaces[n][0] for n in self.names}, {n: spaces[n][1] for n in self.names}

    def _facts(self, trial: Any) -> dict[str, Any]:
        """What ``report.json`` says of one."""
        state = {self.states.COMPLETE: "finished", self.states.PRUNED: "given up"}.get(trial.state, "failed")
        return {
            "settings": _rounded(trial.params), "loss": trial.value, "state": state,
            "why": trial.user_attrs.get("why", ""), "seconds": round(trial.user_attrs["seconds"], 1),
        }  # fmt: skip

    def _say_last(self) -> None:
        """Say how the last trial went."""
        number, found = len(self.trials) - 1, self._facts(self.trials[-1])
        how = f"validation loss {found['loss']:.4f}" if found["loss"] is not None else f"{found['state']}, "
        how += f" ({found['why']})" if found["loss"] is not None and found["why"] else found["why"]
        what = settings_in_words(found["settings"]) if number else "the settings as they are"
        self.say.line(f"trial {number}: {how}; {what}; {duration(found['seconds'])}")

    def _in_words(self, best: int, again: list[list[float]]) -> Iterator[str]:
        trials, first = [self._facts(t) for t in self.trials], self.trials[0].value
        counts = {s: sum(t["state"] == s for t in trials) for s in ("finished", "given up", "failed")}
        said = ", ".join(f"{n:,} {state}" for state, n in counts.items() if n)
        yield f"{len(trials):,} trials: {said}; {duration(math.fsum(t['seconds'] for t in trials))}"
        if not best:
            yield "No trial was better than the settings as they were, which stay."
            return
        yield (
            f"Trial {best} was the best: validation loss {trials[best]['loss']:.4f}, the settings as they were "
            f"{first:.4f}. The best of many is best by chance too, so both were trained again with other seeds."
        )
        ours, others = (", ".join(f"{pair[i]:.4f}" for pair in again) for i in (0, 1))
        if len(again) < AGAIN or not _apart(again):
            yield f"There it was not always ahead ({ours}; as they were {others}): within chance, so they stay."
            return
        gain = math.fsum(pair[1] - pair[0] for pair in again) / AGAIN
        yield (
            f"There it was ahead every time ({ours}; as they were {others}), which chance does once in 20 times, by "
            f"{gain:.4f} in the mean. The model is trained by its settings (best.yaml)."
        )

    def _mattered(self) -> dict[str, float]:
        """The share of each setting in what the losses differ by (fANOVA, Hutter 2014); of few trials nothing.

        Trials that were given up count with the loss they had.
        """
        optuna, study = self.optuna, self.optuna.create_study()
        for t in self.trials:
            if t.intermediate_values:
                last = t.intermediate_values[max(t.intermediate_values)]
                value = last if t.value is None else t.value
                study.add_trial(optuna.trial.create_trial(value=value, params=t.params, distributions=t.distributions))
        if len(study.trials) < ENOUGH or len(self.names) < 2 or len({t.value for t in study.trials}) < 2:
            return {}
        how = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return {
            n: round(share, 3) for n, share in optuna.importance.get_param_importances(study, evaluator=how).items()
        }


def settings_in_words(found: dict[str, Any]) -> str:
    """``learning_rate 0.002, layers 2``"""
    return ", ".join(f"{name} {value:g}" for name, value in found.items())


def _apart(pairs: list[list[float]]) -> bool:
    """Whether every first is lower than every second."""
    return not pairs or max(first for first, _ in pairs) < min(second for _, second in pairs)


def _rounded(params: dict[str, Any]) -> dict[str, Any]:
    """As they stand in a file: four digits tell no more."""
    return {n: float(f"{v:.4g}") if isinstance(v, float) else v for n, v in params.items()}


def _opened(optuna: Any, journal: Path) -> Any:
    """The study of a journal, whose last line may be torn and whose trial a killed search left behind."""
    if journal.exists():
        lines = journal.read_bytes()
        write_whole(journal, lines[: lines.rfind(b"\n") + 1].decode())
    Path(f"{journal}.lock").unlink(missing_ok=True)  # the run's folder is held by us
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARM)
    study = optuna.create_study(storage=storage, study_name="weft", pruner=pruner, load_if_exists=True)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study
