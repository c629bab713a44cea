"""What every way through the six steps shares: the run folder, the clock, the pass over the table, the end."""

from __future__ import annotations

import json
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from weft import config, engine, memory, processes
from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import NAMES
from weft.data.table import Table
from weft.errors import RunError, SettingsError
from weft.files import MANIFEST, held, json_text, sweep, write_manifest, write_whole
from weft.models.backbone import BackboneConfig
from weft.models.recurrent import RecurrentConfig
from weft.preprocess.clean import Cleaner
from weft.preprocess.duplicates import copies_said
from weft.preprocess.ingest import COPIES_FILE, UNLABELLED, CleanRows, Ingested, ingest, make_cleaner, split_in_words
from weft.preprocess.letters import Redactor
from weft.progress import Silent, duration
from weft.results.card import WATTS, write_card
from weft.results.pages import Phrases
from weft.results.private import privacy_in_words
from weft.results.report import write_report
from weft.runs.run import BEST_FILE, REPORT_FILE, SETTINGS_FILE, Run
from weft.tasks.tuning import TRIALS_FILE, open_names, search
from weft.training import parallel
from weft.training.loop import Progress, Recipe
from weft.training.parallel import once

CLEAN = "clean.arrow"
BEFORE_CHECKPOINTS = {
    "weft.yaml", "work", "rejected.parquet", COPIES_FILE, "split.npy", "columns.json", "tokenizer.json",
    "metrics.jsonl", "checkpoints", "catalogue.arrow",
}  # fmt: skip
"""What a run has written when it has no checkpoint yet."""

GATE = re.compile(r"max_loss: [^\s,}]+")
"""What a run may be resumed with another value of: it is asked when all is trained."""


def free_name() -> Path:
    """``runs/1``, ``runs/2``, ...: the first that is not taken."""
    number = 1
    while (path := Path("runs") / str(number)).exists():
        number += 1
    return path


def check_matrices(settings: Settings, backbone: object) -> None:
    """Raises SettingsError where a recurrent checkpoint is to be trained as only a Transformer's matrices can be."""
    if not isinstance(backbone, RecurrentConfig):
        return
    wanted = {"model.adapter": settings.model.adapter, "training.optimizer": settings.training.optimizer}
    problems = [
        f"{name}: {value} is for the matrices of a Transformer. {settings.model.from_} is a recurrent network. "
        f"Remove {name.partition('.')[2]}."
        for name, value in wanted.items()
        if value in ("lora", "muon")
    ]
    if problems:
        raise SettingsError(problems)


class Steps(ABC):
    """One way through the six steps; a subclass a task fills them."""

    recipe: Recipe
    backbone: BackboneConfig
    """Of the model that was built last."""

    def __init__(self, settings: Settings, table: Table | None, out: Path, say: Silent, resume: bool):
        self.settings, self.out, self.say, self.resume = settings, out, say, resume
        self.work = out / "work"
        if settings.training.search is not None:
            open_names(settings)  # which is refused before anything is read
        if table is None:
            if settings.data.source is None:
                raise SettingsError(["settings: data.source is missing. Name the file, glob or folder to read."])
            table = Table.open(settings.data.source, settings.data.format)
        self.table = table
        self.holding = ExitStack()
        """Closed when the run ends: until then no other one may write into its folder."""
        self.seconds: dict[str, float] = {}
        self.cpu = memory.cpu_seconds()  # before anything of the run
        self.used: dict[str, dict[str, float]] = {}
        """What each step took."""
        self.read = 0
        self.copies: dict[str, Any] = {}
        self.redact: Redactor | None = None
        self.trial = False
        """Whether this only tries settings out."""
        self.searched: dict[str, Any] | None = None

    @abstractmethod
    def run(self) -> Run:
        """All steps; the finished run."""

    @abstractmethod
    def _train(self, *ready: Any) -> Any:
        """Build a model by the settings and train it, in the run's folder, on what is ``ready``."""

    def _search(self, *ready: Any) -> None:
        """Go on with the best settings that trials of :meth:`_train` find, where that is asked for."""
        if self.settings.training.search is None:
            return

        def attempt(settings: Settings, say: Silent) -> tuple[Recipe, BackboneConfig]:
            trial = copy(self)
            trial.trial, trial.settings, trial.say, trial.out = True, settings, say, self.work / "trial"
            shutil.rmtree(trial.out, ignore_errors=True)
            trial.out.mkdir()
            (trial.out / "work").symlink_to(self.work.resolve())  # what a frozen checkpoint reads is the same for all
            trial._train(*ready)
            memory.give_back()
            return trial.recipe, trial.backbone

        self.settings, self.searched = search(self.settings, attempt, self.out / TRIALS_FILE, self.say)
        write_whole(self.out / BEST_FILE, config.dumps(self.settings))
        shutil.rmtree(self.work / "trial", ignore_errors=True)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        found: list[memory.Used] = []
        if step == "model":
            engine.rest()
        with memory.measured(found):
            yield
        self.used[step] = found[0].of(self.read if step in ("preprocess", "features") else 0)
        self.seconds[step] = self.used[step]["seconds"]
        memory.give_back()

    def _claim(self) -> None:
        """Take the run folder; a folder that holds something else is never touched."""
        once(self._take, lambda: None)
        if not self.work.is_dir():
            raise RunError(f"{self.out}: must lie where all processes see it. Process {processes.number()} does not.")

    def _take(self) -> None:
        file = self.out / SETTINGS_FILE
        self.fingerprint = self.table.fingerprint()
        versions = f"# weft {version('weft')}, torch {torch.__version__}\n# data sha256 {self.fingerprint}\n"
        text = versions + config.dumps(self.settings)
        finished = (self.out / MANIFEST).exists()
        if not self.resume:
            self.out.mkdir(parents=True, exist_ok=True)
        if self.out.is_dir():
            self.holding.enter_context(held(self.out))
        if not self.resume:
            for left in self.out.glob(f".{SETTINGS_FILE}.*.part"):  # killed at its very beginning
                left.unlink()
            if self._nothing_to_lose():
                self.say.line(f"{self.out}: a run that ended before its first checkpoint is begun anew")
                for path in self.out.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if any(self.out.iterdir()):
                state = "a finished run" if finished else "files; --resume goes on with a run that was stopped"
                raise RunError(
                    f"{self.out}: the folder must be new or empty. It holds {state}. Choose another with -o."
                )
            write_whole(file, text)
            self.work.mkdir()
            return
        if finished:
            raise RunError(f"{self.out}: must be a run that was stopped. It is finished; there is nothing to resume.")
        if not file.exists():
            raise RunError(f"{self.out}: must hold a run to resume. Got none. Leave out --resume to start it.")
        begun = file.read_text(encoding="utf-8")
        if GATE.sub("", begun) != GATE.sub("", text):
            raise RunError(
                f"{self.out}: a run resumes with the settings, data and versions it began with ({file}). Got others. "
                f"Start a new run with -o."
            )
        if begun != text:
            write_whole(file, text)
        sweep(self.out)
        self.work.mkdir(exist_ok=True)

    def _nothing_to_lose(self) -> bool:
        """Whether the folder holds a run that failed or was killed before its first checkpoint, and nothing else."""
        file = self.out / SETTINGS_FILE
        # a pipeline file that a person wrote has no such head, and no work beside it
        begun = self.work.is_dir() and file.exists() and "\n# data sha256 " in file.read_text(encoding="utf-8")[:200]
        names = {path.name for path in self.out.iterdir() if not path.name.startswith("events.out.")}
        return begun and names <= BEFORE_CHECKPOINTS and not any((self.out / "checkpoints").glob("**/state.json"))

    def _cleaner(self, plan: Plan) -> Cleaner:
        return make_cleaner(self.settings, plan)

    def _preprocess(self, plan: Plan) -> tuple[CleanRows, Ingested, Cleaner]:
        for warning in plan.warnings:
            self.say.warn(warning)
        cleaner = self._cleaner(plan)
        clean, found = once(lambda: self._ingest(plan, cleaner), self._ingested)
        self.read, self.copies = found.read, found.copies
        copies = found.copies.get("left_out", 0)
        self.say.step(
            "preprocess",
            f"{found.read:,} rows = {len(clean) - copies:,} used + {found.rejected:,} set aside"
            + (f" + {copies:,} copies left out" if copies else ""),
        )
        for reason, count in list(found.reasons().items())[:3]:
            self.say.line(f"set aside: {count:,} x {reason} (rejected.parquet)")
        for what, count in cleaner.noticed.items():
            self.say.line(f"{count:,} x {what}")
        for phrase, values in copies_said(found.copies):
            self.say.line(phrase.format(**values))
        self.redact = cleaner.letters.redact
        for words in self.redact.in_words() if self.redact else ():
            self.say.line(f"personal data replaced in {words}")
        if plan.target_type != "ranking":  # of which it is said once the events are in order
            self.say.line(split_in_words(self.settings, clean))
        return clean, found, cleaner

    def _ingest(self, plan: Plan, cleaner: Cleaner) -> tuple[CleanRows, Ingested]:
        clean, parts, found = ingest(
            self.settings, plan, self.table, cleaner, self.work / CLEAN, self.out / "rejected.parquet", self.say
        )
        np.save(self.out / "split.npy", parts)
        write_whole(self.work / "dealt.json", json.dumps(found.dealt))
        return clean, found

    def _ingested(self) -> tuple[CleanRows, Ingested]:
        """What the first process made of the table."""
        found = Ingested()
        found.dealt = json.loads((self.work / "dealt.json").read_text())
        return CleanRows(self.work / CLEAN, np.load(self.out / "split.npy")), found

    def _data_facts(self, plan: Plan, clean: CleanRows, found: Ingested) -> dict[str, Any]:
        """What ``report.json`` says of the data, whatever the task."""
        return {
            "weft": version("weft"),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {
                "name": self.table.name, "fingerprint": self.fingerprint, "rows": found.read,
                "used": len(clean) - found.copies.get("left_out", 0), "rejected": found.rejected,
                "copies": found.copies, "reasons": found.reasons(),
                "split": {name: clean.count(part) for part, name in enumerate(NAMES)},
                "unlabelled": clean.count(UNLABELLED),
                "split_words": split_in_words(self.settings, clean),
            },
            "columns": [{"name": n, "type": t, "reason": plan.reasons[n]} for n, t in plan.types.items()],
            "left_out": plan.left_out,
            "warnings": plan.warnings,
        }  # fmt: skip

    def _private(self, progress: Progress, unit: str) -> dict[str, Any]:
        """The account of a private training; ``unit``: what epsilon is for."""
        if progress.privacy is None:
            return {}
        account = progress.privacy | {"unit": unit}
        self.say.line(privacy_in_words(account, Phrases("en")))
        return {"privacy": account}

    def _finish(self, figures: dict[str, Any]) -> None:
        if self.redact is not None:
            counts = self.redact.found.items()
            figures["redact"] = self.redact.to_dict() | {"found": [[*where, n] for where, n in counts]}
        cpu = memory.cpu_seconds() - self.cpu + parallel.helped_seconds
        figures["energy"] = {
            "cpu_seconds": round(cpu, 1), "watts_a_core": WATTS, "watt_hours": round(cpu * WATTS / 3600, 4),
        }  # fmt: skip
        if self.searched is not None:
            figures["search"] = self.searched
        figures |= {"memory": {"bound": memory.bound(), "steps": self.used}}
        write_whole(self.out / REPORT_FILE, json_text(figures, indent=1) + "\n")
        write_report(self.out, figures, self.settings.results.report or "en")
        write_card(self.out, figures, self.settings.results.report or "en")
        keep = ("weft.yaml", "model.safetensors", "config.json", "columns.json", "tokenizer.json", "split.npy",
                "report.json", "rejected.parquet", COPIES_FILE, "catalogue.arrow", "users.arrow",
                BEST_FILE)  # fmt: skip
        write_manifest(self.out, [name for name in keep if (self.out / name).exists()])
        for name in ("work", "checkpoints"):  # not before the run can do without them
            shutil.rmtree(self.out / name, ignore_errors=True)
        for step, used in self.used.items():
            self.say.line(f"{step}: {memory.used_in_words(used)}")
        self.say.step("done", f"in {duration(sum(self.seconds.values()))}; everything is in {self.out}")


@dataclass
class Foretold:
    """What a training would take: the model as it begins, its steps, and seconds and bytes of activations of each."""

    plan: Plan
    model: nn.Module
    shape: str
    recipe: Recipe
    steps: int
    seconds: float
    activations: int
    size: float
    """What the rows that were read hold, in ``unit``."""
    unit: str
    said: str
    """More about them."""


class ForetoldSteps(Steps):
    """Steps whose training is foretold by taking them over the first rows."""

    scale = 1.0
    """How many times as many rows there are than the first ones."""

    @abstractmethod
    def foretell(self) -> Foretold:
        """What training on ``scale`` times as many rows as the table's would take, measured on these."""
