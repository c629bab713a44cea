"""The pipeline file: YAML to frozen settings.

All problems of a file are reported at once, each with ``file:line:column`` and, for an unknown word,
the nearest known one. Only what does something is a setting; every key but ``data.source`` and
``target`` has a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from weft.data_settings import DataSettings, Feature, PreprocessSettings, long_form
from weft.errors import SettingsError, UsageError, listing
from weft.settings_errors import problems_of
from weft.training_settings import ByGroups, StrictSettings, TrainingSettings, check_owners
from weft.yaml_text import Problem, kind_of, lay_over, lines, parse

Task = Literal["row", "next_token", "masked_token", "text", "dialogue", "span", "embedding", "ranking"]


class TargetSettings(StrictSettings):
    """What is learnt: a column of a row, or to write or read the texts of a column."""

    column: str | None = None
    """The column to predict."""
    next_token: str | None = None
    """The text column whose every next token is predicted: a model that writes."""
    masked_token: str | None = None
    """The text column whose hidden tokens are predicted from both sides: a model that reads."""
    type: Literal["class", "labels", "number", "text", "dialogue", "span", "embedding", "ranking"] | None = None
    """Of `column`; class, labels (any number of classes a row) or number is guessed when left out. `text` is written
    from the text columns in features (translation, summary, answer); of a `dialogue` the assistant's turns are learnt;
    a `span` is the place in a text that answers a question; the vector of an `embedding` is to lie nearest to that of
    the row's text; of a `ranking` the next item of a user is predicted, from events or from histories."""
    user: str | None = None
    """The column that says whose events they are (type ranking; a table of events needs it)."""
    time: str | None = None
    """The column that says when an event was (type ranking; default: the order of the rows)."""
    taken: bool | None = None
    """Whether items that a user has had may be recommended again (type ranking; default: where users repeat)."""
    start: str | None = None
    """The column that says at which character a span begins (default: answer_start, where there is one)."""
    positive: str | None = None
    """Of two classes, the one that is looked for (default: the rarer)."""
    max_tokens: Annotated[int, Field(ge=4, le=8192)] | None = None
    """Longest text that is written, in tokens (type text; default: by the training texts)."""
    beams: Annotated[int, Field(ge=1, le=64)] | None = None
    """Texts searched side by side for the most probable one (type text; default: 1, greedy)."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between the labels of a text cell (guessed when left out; a JSON array needs none)."""
    coverage: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the rows that is answered; the least sure are declined (default: all, or 0.95 with out_of_scope)."""
    out_of_scope: str | None = None
    """The word of the column for rows that belong to none of the classes: it is never an answer."""

    @property
    def declines(self) -> float | None:
        """The share of rows to answer, where some are declined."""
        return self.coverage or (0.95 if self.out_of_scope is not None else None)

    @model_validator(mode="after")
    def _one_task(self) -> TargetSettings:
        given = [n for n in ("column", "next_token", "masked_token") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"one thing is learnt: column, next_token or masked_token. Got {listing(given) or 'none'}")
        owners: dict[str, tuple[str | None, ...]] = {
            **dict.fromkeys(("positive", "coverage", "out_of_scope"), (None, "class")), "separator": (None, "labels"),
            **dict.fromkeys(("max_tokens", "beams"), ("text",)), "start": ("span",),
            **dict.fromkeys(("user", "time", "taken"), ("ranking",)),
        }  # fmt: skip
        own = [n for n in ("type", *owners) if getattr(self, n) is not None]
        if self.column is None and own:
            raise ValueError(f"{listing(own)} is for target.column. Remove it")
        check_owners(self, owners, "a target of type {}")
        if self.separator is not None and (self.coverage or self.out_of_scope):
            raise ValueError("separator is for a target of labels, coverage for one of classes. Keep one of them")
        return self

    @property
    def name(self) -> str:
        """The column, whatever is learnt of it."""
        name = self.column or self.next_token or self.masked_token
        assert name is not None
        return name

    @property
    def task(self) -> Task:
        """What kind of thing is learnt."""
        if self.type in ("text", "dialogue", "span", "embedding", "ranking"):
            return self.type
        return "next_token" if self.next_token else "masked_token" if self.masked_token else "row"


class ModelSettings(StrictSettings):
    """What reads the tokens of a row: a new network, or a checkpoint that goes on learning."""

    from_: Annotated[str | None, Field(alias="from")] = None
    """A checkpoint whose model of texts or pictures reads the row: a run, a Hugging Face folder, or hf://OWNER/NAME on
    the hub."""
    backbone: Literal["transformer", "rnn"] = "transformer"
    """What reads the tokens."""
    cell: Literal["rnn", "gru", "lstm"] | None = None
    """The step of a recurrent backbone (default: gru)."""
    width: Annotated[int, Field(ge=8, le=16384)] | None = None
    """D, the width of a token (default: by the data, shown by `weft check`)."""
    layers: Annotated[int, Field(ge=1, le=256)] | None = None
    """Blocks of the backbone (default: by the data); of a checkpoint, which then is a smaller one, so many of its own,
    evenly spaced."""
    ffn_width: Annotated[int, Field(ge=8, le=65536)] | None = None
    """F, the width inside the feed-forward layers (default: by the width); of a checkpoint so many of its own, those
    with the largest weights."""
    heads: Annotated[int, Field(ge=1, le=256)] | None = None
    """H, the heads of attention; they divide the width (default: by the width)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the states that are hidden while it learns (default: 0.1 in most models)."""
    adapter: Literal["lora", "head"] | None = None
    """Train small matrices beside the frozen ones of the checkpoint (LoRA, Hu 2021); or `head`: leave the checkpoint as
    it is, and train what answers by what it reads. Rows it alone reads are then read once."""
    rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Width of the adapter's matrices (default: 16)."""
    copies: Annotated[int, Field(ge=1, le=100)] | None = None
    """Models trained on different folds of train and valid that answer as one (default: 5 on small tables)."""

    @model_validator(mode="after")
    def _belongs_together(self) -> ModelSettings:
        if self.from_ is not None:
            own = [n for n in ("width", "heads", "cell") if getattr(self, n) is not None]
            if own or self.backbone != "transformer":
                raise ValueError(
                    f"the checkpoint says {listing(own or ['backbone'])} itself. Remove it, or remove from"
                )
        if self.adapter is not None and self.from_ is None:
            raise ValueError("an adapter is trained beside a checkpoint. Say from, or remove adapter")
        if self.rank is not None and self.adapter != "lora":
            raise ValueError("rank is for an adapter. Say adapter: lora, or remove rank")
        if self.cell is not None and self.backbone != "rnn":
            raise ValueError("cell is for a recurrent backbone. Say backbone: rnn, or remove cell")
        if self.heads is not None and self.backbone == "rnn":
            raise ValueError("a recurrent backbone has no heads. Remove heads")
        if self.ffn_width is not None and self.backbone == "rnn":
            raise ValueError("a recurrent backbone has no feed-forward layers. Remove ffn_width")
        return self


class ResultsSettings(StrictSettings):
    """What the report holds beside the model's figures."""

    baselines: bool | None = None
    """Train the trivial, the linear and the boosted-tree baselines beside the model (default: yes, but not beside a
    private one: they are not)."""
    language: str | None = None
    """The column that says each row's language, for figures by language (default: detected in the texts)."""
    explain: Literal["shap", "off"] | None = None
    """What a model of rows relies on, and some of its answers explained, in a tenth of the training time; `off` leaves
    it out (default: shap)."""
    fairness: ByGroups | None = None
    """How the model fares with each group of rows (default: by those of training.fairness)."""
    report: Literal["en", "zh"] | None = None
    """The language that the report is written in (default: en)."""


class Settings(StrictSettings):
    """A whole pipeline file."""

    version: Literal[1] = 1
    """Of this form of the file."""
    data: DataSettings = DataSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    features: dict[str, Feature] = Field(default_factory=dict)
    """Column to type; columns not named are guessed, `off` leaves one out."""
    target: Annotated[TargetSettings, BeforeValidator(long_form("column"), json_schema_input_type=str | TargetSettings)]
    """The column to predict, or what else is learnt."""
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    results: ResultsSettings = ResultsSettings()

    @property
    def fairness(self) -> dict[str, ByGroups]:
        """Where columns of groups are named."""
        given = {"training": self.training.fairness, "results": self.results.fairness}
        return {where: found for where, found in given.items() if found is not None}

    @property
    def grouped_by(self) -> list[str]:
        """All columns of groups, those of the training first."""
        return list(dict.fromkeys(name for found in self.fairness.values() for name in found.by))

    @model_validator(mode="after")
    def _fits_task(self) -> Settings:
        task = self.target.task
        if self.training.label_smoothing is not None and task not in ("text", "dialogue", "ranking"):
            raise ValueError("training.label_smoothing is for target.type text, dialogue or ranking. Remove it")
        if self.preprocess.duplicates != "off" and task == "ranking":
            raise ValueError("preprocess.duplicates: an event that comes twice counts once as it is. Remove it")
        if self.data.items is not None and task != "ranking":
            raise ValueError("data.items is for target.type ranking. Remove it")
        if self.model.from_ is not None and task == "ranking":
            raise ValueError("model.from: a checkpoint reads texts, not items. Remove it")
        if (redact := self.preprocess.redact) is not None:
            if task == "span":
                raise ValueError("preprocess.redact: answers are places in the text as it came. Remove it")
            if task == "ranking" and redact.key is None:
                raise ValueError(
                    "preprocess.redact: users and items are told apart by their names. Say {kinds: ..., key: FILE}, "
                    "which gives each a stand-in of its own"
                )
        if self.training.distil and task not in ("row", "next_token"):
            raise ValueError(f"training.distil is for a target column of a row or next_token, not {task}. Remove it")
        if self.model.adapter == "head" and task != "row":
            raise ValueError(f"model.adapter: head is for a target column of a row, not {task}. Say lora, or remove it")
        names = ("augment", "mixup", "cutmix", "consistency", "dropout_schedule", "column_dropout", "class_weight",
                 "fairness")  # fmt: skip
        given = [f"training.{name}" for name in names if getattr(self.training, name)]
        given += ["model.copies"] if self.model.copies is not None else []
        own = ("language", "explain", "report", "fairness")
        given += [f"results.{name}" for name in own if getattr(self.results, name) is not None]
        long = [f"features.{name}.summary" for name, feature in self.features.items() if feature.summary]
        if (given or long) and task != "row":
            raise ValueError(f"{listing(given + long)} is for a target column of a row, not {task}. Remove it")
        if long and self.model.from_ is not None:
            raise ValueError(f"{listing(long)} is for a model from scratch: a checkpoint reads every token. Remove it")
        if self.training.accumulate and task in ("embedding", "ranking"):
            what = (
                "each text is compared with all others" if task == "embedding" else "items are drawn for all histories"
            )
            raise ValueError(f"training.accumulate: {what} of its step. Remove it")
        if self.training.canaries is not None and task != "next_token":
            raise ValueError(f"training.canaries is for target.next_token, not {task}. Remove it")
        if self.training.federated is not None:
            self._federated(task)
        if self.training.privacy is not None:
            self._private(task)
        if self.training.optimizer == "muon" and (self.model.backbone == "rnn" or self.model.adapter):
            raise ValueError("training.optimizer: muon is for the matrices of a Transformer, all trained. Remove it")
        return self

    def _federated(self, task: Task) -> None:
        if task != "row":
            raise ValueError(f"training.federated is for a target column of a row, not {task}. Remove it")
        training = ("privacy", "fairness", "accumulate", "mixup", "cutmix", "class_weight")
        odd = [f"training.{n}" for n in training if getattr(self.training, n)]
        odd += ["model.copies"] if (self.model.copies or 1) > 1 else []
        if odd:
            raise ValueError(f"{listing(odd)} needs rows of several owners at once. Remove it, or training.federated")
        if self.training.private and self.preprocess.duplicates != "off":
            raise ValueError("preprocess.duplicates: a row decides on those of other owners. Remove it, or privacy")

    def _private(self, task: Task) -> None:
        if task == "embedding":
            why = "the loss compares each text with those of other rows, so that no row has a gradient of its own"
            raise ValueError(f"training.privacy: of target.type embedding {why}. Remove it")
        if self.preprocess.duplicates == "near":
            raise ValueError("preprocess.duplicates: near lets a row decide on others. Take exact, or remove privacy")
        if (self.model.copies or 1) > 1:
            raise ValueError("model.copies: each copy would spend epsilon anew. Remove it, or training.privacy")

    @property
    def baselines(self) -> bool:
        """Whether simple models are trained beside the model."""
        given = self.results.baselines
        return self.training.private is None if given is None else given


def load(path: str | Path, changes: Sequence[str] = (), needs_source: bool = True) -> Settings:
    """Read a pipeline file; ``changes`` are ``a.b=value`` strings laid over it, the value read as YAML.

    Raises:
        SettingsError: every problem of the file, one a line.
        UsageError: the file is missing or a change is not of the form ``a.b=value``.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file. `weft init DATA -o {path}` writes one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: must be a readable UTF-8 text file. Got {error}.") from None
    return loads(text, str(path), changes, needs_source)


def loads(text: str, name: str = "settings", changes: Sequence[str] = (), needs_source: bool = True) -> Settings:
    """As :func:`load`, from the text of a file."""
    root, document, problems = parse(text, name)
    if document is None and not problems:
        raise SettingsError([f"{name}: must hold at least data.source and target. Got an empty file."])
    if not isinstance(document, Mapping):
        raise SettingsError(
            [text for _, text in problems]
            or [f"{name}:1:1: must be a mapping of keys to values. Got {kind_of(document)}."]
        )
    origins: dict[tuple[str, ...], str] = {}
    for change in changes:
        document = lay_over(document, change, origins)
    return _validate(document, name, needs_source, root, origins, problems)


def from_mapping(settings: Mapping[str, Any]) -> Settings:
    """Settings from a Python mapping of the same shape as a pipeline file."""
    return _validate(settings, "settings", needs_source=False)


def dumps(settings: Settings) -> str:
    """The settings as a pipeline file that reads back equal; values at rest (None) are left out."""
    return "".join(lines(settings.model_dump(exclude_none=True, by_alias=True), ""))


def _validate(
    document: Mapping[str, Any],
    name: str,
    needs_source: bool,
    root: Any = None,
    origins: Mapping[tuple[str, ...], str] | None = None,
    found: Sequence[Problem] = (),
) -> Settings:
    problems = list(found)
    settings = None
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        said = [position for position, _ in found]  # by the reader of the YAML
        problems += (p for p in problems_of(error, Settings, root, name, origins or {}) if p[0] not in said)
    data = document.get("data")
    if needs_source and not found and not (data.get("source") if isinstance(data, Mapping) else data):
        problems.append(((-1, 0), f"{name}: data.source is missing. Name the file, glob or folder to read."))
    if problems or settings is None:
        raise SettingsError([text for _, text in sorted(problems, key=lambda p: p[0])])
    return settings
