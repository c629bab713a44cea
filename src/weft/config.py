"""The pipeline file: YAML to frozen settings.

All problems of a file are reported at once, each with ``file:line:column`` and, for an unknown word,
the nearest known one. Only what does something is a setting; every key but ``data.source`` and
``target`` has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from weft.errors import SettingsError, UsageError, did_you_mean, listing
from weft.yaml_text import Problem, kind_of, lay_over, lines, parse, place_of, shown

Share = Annotated[float, Field(ge=0, lt=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class SplitSettings(_Settings):
    """Which rows are learnt from, watched, and judged on. The same rows on every run with one seed."""

    test: Share = 0.15
    """Share of rows kept for the final figures."""
    valid: Share = 0.1
    """Share of rows watched while training (early stopping, calibration)."""
    column: str | None = None
    """A column that already says train, valid or test; a missing `valid` is drawn from train."""
    by: str | None = None
    """Rows that share this column's value stay together (one customer is never on both sides)."""
    time: str | None = None
    """The latest rows by this column are the test, the ones before them valid."""
    stratify: bool = True
    """Keep the class shares equal in every part (random splits of a class target)."""

    @model_validator(mode="after")
    def _one_way(self) -> SplitSettings:
        ways = [name for name in ("column", "by", "time") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"a table is split one way. Got {listing(ways)}. Keep one of them")
        if self.test + self.valid >= 0.9:
            raise ValueError(f"test + valid must leave rows to learn from. Got {self.test + self.valid:g}")
        return self


def _addresses(value: Any) -> Any:
    """A path is an address too; anything but texts and paths is refused once, not once for each kind."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if value is not None and not all(isinstance(item, (str, Path)) and str(item).strip() for item in items):
        odd = next(item for item in items if not (isinstance(item, (str, Path)) and str(item).strip()))
        raise ValueError(f"must be a file, glob, folder or address, or a list of them. Got {shown(odd)}")
    texts = [str(item) for item in items]
    return value if value is None else texts if isinstance(value, (list, tuple)) else texts[0]


class DataSettings(_Settings):
    source: Annotated[str | list[str] | None, BeforeValidator(_addresses)] = None
    """File, list of files, glob, folder or fsspec address of CSV, JSON Lines, Parquet, Arrow or plain text."""
    format: Literal["csv", "jsonl", "parquet", "arrow", "text", "squad"] | None = None
    """Said only where the file's ending does not tell."""
    split: SplitSettings = SplitSettings()
    max_rejected: Share = 0.01
    """Share of rows that may be set aside as bad before the run stops."""


class PreprocessSettings(_Settings):
    normalize: Literal["nfkc", "nfc", "off"] | None = None
    """Unicode form of texts and categories (default: nfkc; nfc where text is written, which keeps full-width
    punctuation); `off` leaves every character as it came."""


def _long_form(key: str) -> Callable[[Any], Any]:
    """A bare word is the short form of ``{key: word}``."""
    return lambda value: {key: value} if isinstance(value, str) else value


class FeatureSettings(_Settings):
    type: Literal["text", "number", "category", "time", "off"]
    """What the column holds; `off` leaves it out."""
    max_tokens: Annotated[int, Field(ge=4, le=8192)] | None = None
    """Longest text in tokens (text only; default: the 99th percentile of the column, at most 256). Of a text that
    is learnt to be written: the context, in which longer ones are cut into pieces."""
    vocabulary: Annotated[int, Field(ge=300, le=1_000_000)] | Literal["characters"] | None = None
    """Tokens that are learnt where text is written: so many at most, or one a character (default: by the data)."""
    max_categories: Annotated[int, Field(ge=2)] | None = None
    """Most categories kept, by frequency; the others count as unknown (category only; default 10,000)."""

    @model_validator(mode="after")
    def _fits_type(self) -> FeatureSettings:
        for name, owner in (("max_tokens", "text"), ("vocabulary", "text"), ("max_categories", "category")):
            if getattr(self, name) is not None and self.type != owner:
                raise ValueError(f"{name} is for {owner} columns, this one is {self.type}. Remove it")
        return self


class TargetSettings(_Settings):
    """What is learnt: a column of a row, or to write or read the texts of a column."""

    column: str | None = None
    """The column to predict."""
    next_token: str | None = None
    """The text column whose every next token is predicted: a model that writes."""
    masked_token: str | None = None
    """The text column whose hidden tokens are predicted from both sides: a model that reads."""
    type: Literal["class", "labels", "number", "text", "dialogue", "span", "embedding"] | None = None
    """Of `column`; class, labels (any number of classes a row) or number is guessed when left out. `text` is written
    from the text columns in features (translation, summary, answer); of a `dialogue` the assistant's turns are learnt;
    a `span` is the place in a text that answers a question; the vector of an `embedding` is to lie nearest to that of
    the row's text."""
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

    @model_validator(mode="after")
    def _fits_type(self) -> TargetSettings:
        for name, kind in (("coverage", "class"), ("out_of_scope", "class"), ("separator", "labels")):
            if getattr(self, name) is not None and self.type not in (None, kind):
                raise ValueError(f"{name} is for a target of type {kind}, this one is {self.type}. Remove it")
        if self.separator is not None and (self.coverage or self.out_of_scope):
            raise ValueError("separator is for a target of labels, coverage for one of classes. Keep one of them")
        return self

    @property
    def declines(self) -> float | None:
        """The share of rows to answer, where some are declined."""
        return self.coverage or (0.95 if self.out_of_scope is not None else None)

    @model_validator(mode="after")
    def _one_task(self) -> TargetSettings:
        given = [n for n in ("column", "next_token", "masked_token") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"one thing is learnt: column, next_token or masked_token. Got {listing(given) or 'none'}")
        alone = ("type", "positive", "max_tokens", "beams", "separator", "coverage", "out_of_scope")
        own = [n for n in alone if getattr(self, n) is not None]
        if self.column is None and own:
            raise ValueError(f"{listing(own)} is for target.column. Remove it")
        writes = [n for n in ("max_tokens", "beams") if getattr(self, n) is not None]
        if self.type != "text" and writes:
            raise ValueError(f"{listing(writes)} is for a text that is written. Say type: text, or remove it")
        if self.type not in (None, "class") and self.positive is not None:
            raise ValueError("positive is for a target of two classes. Remove it")
        if self.type != "span" and self.start is not None:
            raise ValueError("start is for a target of type span. Remove it")
        return self

    @property
    def name(self) -> str:
        """The column, whatever is learnt of it."""
        name = self.column or self.next_token or self.masked_token
        assert name is not None
        return name

    @property
    def task(self) -> Literal["row", "next_token", "masked_token", "text", "dialogue", "span", "embedding"]:
        """What kind of thing is learnt."""
        if self.type in ("text", "dialogue", "span", "embedding"):
            return self.type
        return "next_token" if self.next_token else "masked_token" if self.masked_token else "row"


class ModelSettings(_Settings):
    from_: Annotated[str | None, Field(alias="from")] = None
    """A checkpoint whose text model reads the row: a run, a Hugging Face folder, or hf://OWNER/NAME on the hub."""
    backbone: Literal["transformer", "rnn"] = "transformer"
    """What reads the tokens."""
    cell: Literal["rnn", "gru", "lstm"] | None = None
    """The step of a recurrent backbone (default: gru)."""
    width: Annotated[int, Field(ge=8, le=16384)] | None = None
    """D, the width of a token (default: by the data, shown by `weft check`)."""
    layers: Annotated[int, Field(ge=1, le=256)] | None = None
    heads: Annotated[int, Field(ge=1, le=256)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    adapter: Literal["lora"] | None = None
    """Train small matrices beside the frozen ones of the checkpoint (LoRA, Hu 2021)."""
    rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Width of the adapter's matrices (default: 16)."""
    copies: Annotated[int, Field(ge=1, le=100)] | None = None
    """Models trained on different folds of train and valid that answer as one (default: 5 on small tables)."""

    @model_validator(mode="after")
    def _belongs_together(self) -> ModelSettings:
        if self.from_ is not None:
            own = [n for n in ("width", "layers", "heads", "cell") if getattr(self, n) is not None]
            if own or self.backbone != "transformer":
                raise ValueError(
                    f"the checkpoint says {listing(own or ['backbone'])} itself. Remove it, or remove from"
                )
        if self.adapter is not None and self.from_ is None:
            raise ValueError("an adapter is trained beside a checkpoint. Say from, or remove adapter")
        if self.rank is not None and self.adapter is None:
            raise ValueError("rank is for an adapter. Say adapter: lora, or remove rank")
        if self.cell is not None and self.backbone != "rnn":
            raise ValueError("cell is for a recurrent backbone. Say backbone: rnn, or remove cell")
        if self.heads is not None and self.backbone == "rnn":
            raise ValueError("a recurrent backbone has no heads. Remove heads")
        return self


class BackTranslationSettings(_Settings):
    """Training texts translated away and back, once, by runs that write texts (Sennrich 2016, Xie 2020)."""

    through: Annotated[list[str], Field(min_length=1)]
    """Folders of runs with a target of type text, in their order: e.g. one from English to Chinese, one back."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the rows that are read as they came back; drawn anew each epoch."""


class AugmentSettings(_Settings):
    """Training texts in other words, drawn anew each epoch. A word of Chinese or Japanese is a character."""

    delete: Share = 0.0
    """Share of the words that are left out."""
    swap: Share = 0.0
    """Share of the words that change places with the next."""
    typo: Share = 0.0
    """Share of the words with a slip at one letter: doubled, left out, swapped or the key beside it."""
    mask: Share = 0.0
    """Share of the tokens that are hidden, in spans of three."""
    back_translation: BackTranslationSettings | None = None
    """Read some rows as given models translate them away and back; the other changes are made after it."""

    @model_validator(mode="after")
    def _does_something(self) -> AugmentSettings:
        if not (self.delete or self.swap or self.typo or self.mask or self.back_translation):
            raise ValueError(
                "must change something. Give delete, swap, typo or mask a share, or back_translation, or remove augment"
            )
        return self


class TrainingSettings(_Settings):
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Most passes over the training rows; early stopping usually ends sooner."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop after this long, whatever the epoch."""
    batch_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows of one optimiser step."""
    optimizer: Literal["adamw", "muon"] | None = None
    """Muon makes the steps of a Transformer's matrices orthogonal (default where a text model begins from nothing)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation loss before training stops."""
    label_smoothing: Share | None = None
    """Share of the probability that is spread over all tokens (Szegedy 2016), where a text or a dialogue is written
    (default: 0.1 for a text from scratch, else 0)."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weighs each class by the inverse of its share; probabilities are corrected back."""
    augment: AugmentSettings | None = None
    """Changes made to the training texts."""
    mixup: Annotated[float, Field(ge=0, le=100)] | None = None
    """Rows are mixed with others by a share from Beta(mixup, mixup) (Zhang 2018)."""
    consistency: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Every row is read twice, and differing answers cost this much (R-Drop, Liang 2021)."""
    dropout_schedule: Literal["early", "late", "rising"] | None = None
    """Dropout in the first half of the training only, in the second only, or growing from none (Liu 2023)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; `auto` takes bfloat16 where the machine multiplies it in hardware."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0

    @model_validator(mode="after")
    def _one_of(self) -> TrainingSettings:
        if self.mixup and self.consistency:
            raise ValueError("mixup and consistency exclude each other. Remove one of them")
        return self


class ResultsSettings(_Settings):
    baselines: bool = True
    """Train the trivial, the linear and the boosted-tree baselines beside the model."""
    language: str | None = None
    """The column that says each row's language, for figures by language (default: detected in the texts)."""


class Settings(_Settings):
    """A whole pipeline file."""

    version: Literal[1] = 1
    data: DataSettings = DataSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    features: dict[str, Annotated[FeatureSettings, BeforeValidator(_long_form("type"))]] = {}
    """Column to type; columns not named are guessed, `off` leaves one out."""
    target: Annotated[TargetSettings, BeforeValidator(_long_form("column"))]
    """The column to predict."""
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    results: ResultsSettings = ResultsSettings()

    @model_validator(mode="after")
    def _fits_task(self) -> Settings:
        task = self.target.task
        if self.training.label_smoothing is not None and task not in ("text", "dialogue"):
            raise ValueError("training.label_smoothing is for target.type text or dialogue. Remove it")
        names = ("augment", "mixup", "consistency", "dropout_schedule", "class_weight")
        given = [f"training.{name}" for name in names if getattr(self.training, name)]
        given += ["model.copies"] if self.model.copies is not None else []
        given += ["results.language"] if self.results.language is not None else []
        if given and task != "row":
            raise ValueError(f"{listing(given)} is for a target column of a row, not {task}. Remove it")
        if self.training.optimizer == "muon" and (self.model.backbone == "rnn" or self.model.adapter):
            raise ValueError("training.optimizer: muon is for the matrices of a Transformer, all trained. Remove it")
        return self


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


def from_mapping(settings: Mapping[str, Any], needs_source: bool = False) -> Settings:
    """Settings from a Python mapping of the same shape as a pipeline file."""
    return _validate(settings, "settings", needs_source)


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
        for item in error.errors():
            loc = tuple(part for part in item["loc"] if part != "[key]")
            position, where = place_of(root, loc, item["type"] == "extra_forbidden", name, origins or {})
            if position not in [p for p, _ in found]:  # said already by the reader of the YAML
                problems.append((position, f"{where}: {_message(item)}"))
    data = document.get("data")
    if needs_source and not found and not (data.get("source") if isinstance(data, Mapping) else data):
        problems.append(((-1, 0), f"{name}: data.source is missing. Name the file, glob or folder to read."))
    if problems or settings is None:
        raise SettingsError([text for _, text in sorted(problems, key=lambda p: p[0])])
    return settings


def _message(item: Any) -> str:
    """One pydantic error in Weft's words: what must hold, what came, what to do."""
    kind, context, loc, given = item["type"], item.get("ctx", {}), item["loc"], item["input"]
    if kind == "extra_forbidden":
        known = _keys_at(loc[:-1])
        near = did_you_mean(str(loc[-1]), known)
        return f"'{loc[-1]}' is not a setting.{near or ' Known here: ' + listing(known, 20) + '.'}"
    if kind == "missing":
        return "is missing. It has no default."
    if kind == "literal_error":
        allowed = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
        word = f"'{given}'" if isinstance(given, (str, int, float)) else kind_of(given)
        what = "is not a column type" if loc[-1] == "type" and loc[0] == "features" else "is not known here"
        near = did_you_mean(given, allowed) if isinstance(given, str) else ""
        return f"{word} {what}.{near} It may be {listing(allowed)}."
    if kind == "value_error":
        return f"{context['error']}."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        short = loc == ("target",) or loc[:1] == ("features",)  # a bare word would do
        return f"must be a mapping of keys to values. Got {shown(given)}.{_advice(given, short)}"
    text = {
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": "must be a text",
    }.get(kind, item["msg"].replace("Input should be", "must be"))
    return f"{text}. Got {shown(given)}.{_advice(given, kind == 'string_type')}"


def _advice(given: object, wants_text: bool) -> str:
    if given is None:
        return " Fill it or remove it."
    return " Put it in quotes." if wants_text and isinstance(given, (bool, int, float)) else ""


def _keys_at(loc: tuple) -> list[str]:
    model: Any = Settings
    for part in loc:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        annotation = field.annotation if field is not None else FeatureSettings
        kinds = [annotation, *get_args(annotation)]  # itself, or what may also be left out
        model = next((kind for kind in kinds if hasattr(kind, "model_fields")), FeatureSettings)
    return [field.alias or name for name, field in model.model_fields.items()]
