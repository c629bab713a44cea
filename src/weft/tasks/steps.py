"""What every way through the six steps shares: the run folder, the clock, the pass over the table, the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft import config, memory
from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import NAMES
from weft.data.table import Table
from weft.errors import RunError, SettingsError
from weft.files import MANIFEST, write_manifest, write_whole
from weft.models.recurrent import RecurrentConfig
from weft.preprocess.clean import Cleaner
from weft.preprocess.ingest import CleanRows, Ingested, ingest, make_cleaner, split_in_words
from weft.progress import Silent, duration
from weft.results.report import write_card, write_report
from weft.runs.run import REPORT_FILE, SETTINGS_FILE, Run


def free_name() -> Path:
    """``runs/1``, ``runs/2``, ...: the first that is not taken."""
    number = 1
    while (path := Path("runs") / str(number)).exists():
        number += 1
    return path


def check_adapter(settings: Settings, backbone: object) -> None:
    """Raises SettingsError where an adapter is asked for that the checkpoint has no place for."""
    if settings.model.adapter is not None and isinstance(backbone, RecurrentConfig):
        raise SettingsError(
            [f"model.adapter: {settings.model.adapter} stands beside the matrices of a Transformer. "
             f"{settings.model.from_} is a recurrent network. Remove adapter."]
        )  # fmt: skip


class Steps:
    """One way through the six steps; a subclass a task fills them."""

    def __init__(self, settings: Settings, table: Table | None, out: Path, say: Silent, resume: bool):
        self.settings, self.out, self.say, self.resume = settings, out, say, resume
        self.work = out / "work"
        if table is None:
            if settings.data.source is None:
                raise SettingsError(["settings: data.source is missing. Name the file, glob or folder to read."])
            table = Table.open(settings.data.source, settings.data.format)
        self.table = table
        self.seconds: dict[str, float] = {}
        self.used: dict[str, dict[str, float]] = {}
        """What each step took."""
        self.read = 0

    def run(self) -> Run:
        """All steps; the finished run."""
        raise NotImplementedError

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        found: list[memory.Used] = []
        with memory.measured(found):
            yield
        self.used[step] = found[0].of(self.read if step in ("preprocess", "features") else 0)
        self.seconds[step] = self.used[step]["seconds"]
        memory.give_back()

    def _claim(self) -> None:
        """Take the run folder; a folder that holds something else is never touched."""
        file = self.out / SETTINGS_FILE
        self.fingerprint = self.table.fingerprint()
        versions = f"# weft {version('weft')}, torch {torch.__version__}\n# data sha256 {self.fingerprint}\n"
        text = versions + config.dumps(self.settings)
        finished = (self.out / MANIFEST).exists()
        if not self.resume:
            if self.out.exists() and any(self.out.iterdir()):
                state = "a finished run" if finished else "files; --resume goes on with a run that was stopped"
                raise RunError(
                    f"{self.out}: the folder must be new or empty. It holds {state}. Choose another with -o."
                )
            self.out.mkdir(parents=True, exist_ok=True)
            write_whole(file, text)
            return
        if finished:
            raise RunError(f"{self.out}: must be a run that was stopped. It is finished; there is nothing to resume.")
        if not file.exists():
            raise RunError(f"{self.out}: must hold a run to resume. Got none. Leave out --resume to start it.")
        if file.read_text(encoding="utf-8") != text:
            raise RunError(
                f"{self.out}: a run resumes with the settings, data and versions it began with ({file}). Got others. "
                f"Start a new run with -o."
            )

    def _cleaner(self, plan: Plan) -> Cleaner:
        return make_cleaner(self.settings, plan)

    def _preprocess(self, plan: Plan) -> tuple[CleanRows, Ingested, Cleaner]:
        for warning in plan.warnings:
            self.say.warn(warning)
        cleaner = self._cleaner(plan)
        aside = self.out / "rejected.parquet"
        clean, parts, found = ingest(
            self.settings, plan, self.table, cleaner, self.work / "clean.arrow", aside, self.say
        )
        np.save(self.out / "split.npy", parts)
        self.read = found.read
        self.say.step(
            "preprocess",
            f"{found.read:,} rows = {len(clean):,} used + {found.rejected:,} set aside",
        )
        for reason, count in list(found.reasons().items())[:3]:
            self.say.line(f"set aside: {count:,} x {reason} (rejected.parquet)")
        self.say.line(split_in_words(self.settings, clean))
        return clean, found, cleaner

    def _data_facts(self, plan: Plan, clean: CleanRows, found: Ingested) -> dict[str, Any]:
        """What ``report.json`` says of the data, whatever the task."""
        return {
            "weft": version("weft"),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {
                "name": self.table.name, "fingerprint": self.fingerprint, "rows": found.read,
                "used": len(clean), "rejected": found.rejected, "reasons": found.reasons(),
                "split": {name: clean.count(part) for part, name in enumerate(NAMES)},
                "split_words": split_in_words(self.settings, clean),
            },
            "columns": [{"name": n, "type": t, "reason": plan.reasons[n]} for n, t in plan.types.items()],
            "left_out": plan.left_out,
            "warnings": plan.warnings,
        }  # fmt: skip

    def _finish(self, figures: dict[str, Any]) -> None:
        figures |= {"memory": {"bound": memory.bound(), "steps": self.used}}
        write_whole(self.out / REPORT_FILE, json.dumps(figures, ensure_ascii=False, indent=1) + "\n")
        write_report(self.out, figures)
        write_card(self.out, figures)
        shutil.rmtree(self.work)
        shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
        keep = ("weft.yaml", "model.safetensors", "config.json", "columns.json", "tokenizer.json", "split.npy",
                "report.json", "rejected.parquet")  # fmt: skip
        write_manifest(self.out, [name for name in keep if (self.out / name).exists()])
        for step, used in self.used.items():
            self.say.line(f"{step}: {memory.used_in_words(used)}")
        self.say.step("done", f"in {duration(sum(self.seconds.values()))}; everything is in {self.out}")
