"""The pipeline file: YAML to frozen settings.

All problems of a file are reported at once, each with ``file:line:column`` and, for an unknown word,
the nearest known one. Only what does something is a setting; every key but ``data.source`` and
``target`` has a default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from weft.errors import SettingsError, UsageError, listing
from weft.settings_errors import problems_of
from weft.yaml_text import Problem, kind_of, lay_over, lines, parse, shown

Share = Annotated[float, Field(ge=0, lt=1)]
Personal = Literal["email", "phone", "id_number", "passport", "bank_card", "iban", "ip", "plate", "address", "name"]
Task = Literal["row", "next_token", "masked_token", "text", "dialogue", "span", "embedding", "ranking"]


class _Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def _check_owners(settings: Any, owners: Mapping[str, tuple[str | None, ...]], what: str) -> None:
    """Raises ValueError where a setting is given that is for other types, which ``what`` has in words."""
    for name, types in owners.items():
        if getattr(settings, name) is not None and settings.type not in types:
            words = [word for word in types if word]
            whose = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
            raise ValueError(f"{name} is for {what.format(whose)}, this one is {settings.type or 'guessed'}. Remove it")


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


def _long_form(key: str) -> Callable[[Any], Any]:
    """A bare word is the short form of ``{key: word}``."""
    return lambda value: {key: value} if isinstance(value, str) else value


def _pair(value: Any) -> Any:
    """A list of two numbers, as YAML has it."""
    return (
        tuple(map(float, value)) if isinstance(value, list) and all(type(v) in (int, float) for v in value) else value
    )


class FeatureSettings(_Settings):
    type: Literal["text", "number", "category", "time", "image", "sequence", "off"]
    """What the column holds; `off` leaves it out."""
    max_tokens: Annotated[int, Field(ge=4, le=8192)] | None = None
    """Longest text in tokens (text only; default: the 99th percentile of the column, at most 256). Of a text that
    is learnt to be written: the context, in which longer ones are cut into pieces."""
    summary: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Tokens in which the column stands in the row once it has been read ahead, in linear time; 0: all of its own
    (text, image and sequence; default: 16 of a text that may have more than 1,024, else 0)."""
    vocabulary: Annotated[int, Field(ge=300, le=1_000_000)] | Literal["characters"] | None = None
    """Tokens that are learnt where text is written: so many at most, or one a character (default: by the data)."""
    max_categories: Annotated[int, Field(ge=2)] | None = None
    """Most categories kept, or items of histories, by frequency; the others count as unknown (default 10,000)."""
    size: Annotated[int, Field(ge=4, le=512)] | None = None
    """Pixels a side that pictures are brought to (image only; default: as most have, at most 64)."""
    range: Annotated[tuple[float, float] | None, BeforeValidator(_pair)] = None
    """What is black and what is white in arrays of numbers (image only; needed where they are floats)."""
    max_events: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Last events of a history that are read (sequence only; default: the 99th percentile, at most 100)."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between the items of a text cell (sequence only; guessed; a JSON array needs none)."""

    @model_validator(mode="after")
    def _fits_type(self) -> FeatureSettings:
        _check_owners(self, {
            "max_tokens": ("text",), "summary": ("text", "image", "sequence"), "vocabulary": ("text",),
            "max_categories": ("category", "sequence"), "size": ("image",), "range": ("image",),
            "max_events": ("sequence",), "separator": ("sequence",),
        }, "{} columns")  # fmt: skip
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must go up, from black to white. Got {list(self.range)}")
        return self


class ItemsSettings(_Settings):
    source: Annotated[str | list[str], BeforeValidator(_addresses)]
    """A table with one row an item: file, list of files, glob, folder or fsspec address."""
    id: str | None = None
    """Its column of item ids (default: the name of the target's column)."""
    features: dict[str, Annotated[FeatureSettings, BeforeValidator(_long_form("type"))]] = {}
    """Column to type; columns not named are guessed, `off` leaves one out."""


class DataSettings(_Settings):
    source: Annotated[str | list[str] | None, BeforeValidator(_addresses)] = None
    """File, list of files, glob, folder or fsspec address of CSV, JSON Lines, Parquet, Arrow or plain text; or a folder
    of pictures with a class a sub-folder."""
    items: ItemsSettings | None = None
    """What is known of the items that are recommended, beside who had them (target type ranking only)."""
    format: Literal["csv", "jsonl", "parquet", "arrow", "text", "squad"] | None = None
    """Said only where the file's ending does not tell."""
    split: SplitSettings = SplitSettings()
    max_rejected: Share = 0.01
    """Share of rows that may be set aside as bad before the run stops."""


def _kinds(value: Any) -> Any:
    """`all`, or a list, is the short form of ``{kinds: ...}``."""
    return {"kinds": value} if isinstance(value, (str, list)) else value


class RedactSettings(_Settings):
    """Personal data in texts, categories and labels that is replaced before anything is learnt, kept or shown of it."""

    kinds: Annotated[
        list[Personal], BeforeValidator(lambda v: list(get_args(Personal)) if v == "all" else v), Field(min_length=1)
    ]
    """What is replaced: email, phone, id_number, passport, bank_card, iban, ip, plate, address, name; or all."""
    key: str | None = None
    """A file with the secret of stand-ins that tell one value from another, made where it is not there; `weft predict`
    needs it too (default: a value is replaced by its kind alone)."""


class PreprocessSettings(_Settings):
    normalize: Literal["nfkc", "nfc", "off"] | None = None
    """Unicode form of texts and categories (default: nfkc; nfc where text is written, which keeps full-width
    punctuation); `off` leaves every character as it came."""
    duplicates: Literal["off", "exact", "near"] = "off"
    """Copies that are left out, each with the row it is a copy of (duplicates.parquet): `exact`, equal in all that is
    read; `near`, also those whose texts are alike. `off` only counts the equal ones: rows of a few numbers and
    categories may be equal and yet two people."""
    redact: Annotated[RedactSettings | None, BeforeValidator(_kinds)] = None
    """Kinds of personal data to replace, a list of them or all."""


class TargetSettings(_Settings):
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
        _check_owners(self, owners, "a target of type {}")
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


class ModelSettings(_Settings):
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
    """Training texts in other words and pictures seen otherwise, drawn anew each epoch.

    A word of Chinese or Japanese is a character.
    """

    delete: Share = 0.0
    """Share of the words that are left out."""
    swap: Share = 0.0
    """Share of the words that change places with the next."""
    typo: Share = 0.0
    """Share of the words with a slip at one letter: doubled, left out, swapped or the key beside it."""
    mask: Share = 0.0
    """Share of the tokens that are hidden, in spans of three."""
    identity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the rows in which an identity that is named (woman, Muslim, ...) is exchanged for another, in all
    columns alike (counterfactual augmentation, Zmigrod 2019; English and Chinese)."""
    back_translation: BackTranslationSettings | None = None
    """Read some rows as given models translate them away and back; the other changes are made after it."""
    crop: Share | None = None
    """Most of its side by which a picture is moved along each axis (default: 0.07 where there are pictures)."""
    flip: bool = False
    """Half of the pictures are mirrored; not for what has a right and a left, such as digits."""
    color: Share = 0.0
    """Most by which brightness, contrast and saturation are multiplied up or down."""
    erase: Share | None = None
    """Share of the pictures of which a rectangle is hidden (default: 0.25 where there are pictures)."""
    rand_augment: Annotated[int, Field(ge=0, le=4)] = 0
    """Changes of a picture drawn from fourteen: turned, sheared, equalised, ... (Cubuk 2020)."""
    strength: Annotated[int, Field(ge=1, le=10)] | None = None
    """Of those changes (default: 5)."""

    @property
    def for_texts(self) -> list[str]:
        return [n for n in ("delete", "swap", "typo", "mask", "identity", "back_translation") if getattr(self, n)]

    @property
    def for_pictures(self) -> list[str]:
        return [n for n in ("crop", "flip", "color", "erase", "rand_augment") if getattr(self, n)]

    @model_validator(mode="after")
    def _does_something(self) -> AugmentSettings:
        if not (self.for_texts or self.for_pictures) and self.crop is None and self.erase is None:
            raise ValueError(
                "must change something. Give delete, swap, typo, mask or identity a share, or back_translation, or of "
                "pictures crop, flip, color, erase or rand_augment; or remove augment"
            )
        if not self.rand_augment and self.strength is not None:
            raise ValueError("strength is for rand_augment. Give it, or remove strength")
        return self


def _several(value: Any) -> Any:
    """A bare word is a list of one."""
    return [value] if isinstance(value, str) else value


class ByGroups(_Settings):
    by: Annotated[list[str], BeforeValidator(_several), Field(min_length=1)]
    """Columns that say to which group a row belongs; several also together. The model need not read them."""


class FairnessSettings(ByGroups):
    """How groups are treated more alike, at some cost in accuracy, which the report tells."""

    how: Literal["reweigh", "penalty", "thresholds"]
    """Before it learns: rows count so that group and class are independent (Kamiran & Calders 2012). While it learns:
    what the group tells of the answers costs. After it: a threshold a group (Hardt 2016), where that is lawful."""
    goal: Literal["parity", "opportunity"] = "parity"
    """Equal shares of all rows that are given the class looked for, or of those that truly are of it."""
    strength: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Of a penalty its weight (default: 1); of reweigh the power of its weights, of thresholds which part of the way
    is gone, at most 1 (default: 1)."""

    @model_validator(mode="after")
    def _fits(self) -> FairnessSettings:
        if self.how == "thresholds" and (self.strength or 0) > 1:
            raise ValueError(f"strength of thresholds is a part of the way, at most 1. Got {self.strength:g}")
        if self.how == "reweigh" and self.goal != "parity":
            raise ValueError("reweigh makes all shares equal. Remove goal, or take penalty or thresholds")
        return self


class PrivacySettings(_Settings):
    """Private training (Abadi 2016): what is learnt says next to nothing of any one training row."""

    epsilon: Annotated[float, Field(gt=0, le=1000)]
    """How much it may say at most: whatever is seen of the model is at most e^epsilon times as likely with a row as
    without it, but for a chance of delta. 1 is strong, 8 weak."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Default: 1 / (10 rows)."""
    clip: Annotated[float, Field(gt=0)] = 4.0
    """The longest that the gradient of a row may be; longer ones are shortened."""


class FederatedSettings(_Settings):
    """Federated averaging (McMahan 2017), rehearsed in one process: each file or folder of data.source is an owner."""

    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    """Steps of each owner in a round."""
    rate: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How large these are."""


class TrainingSettings(_Settings):
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Most passes over the training rows; early stopping usually ends sooner."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop after this long, whatever the epoch. By the clock, so that no two such runs are the same."""
    batch_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows of one optimiser step."""
    accumulate: Annotated[int, Field(ge=2)] | None = None
    """Parts that a step's rows are computed in, one after another: the same step in less memory."""
    optimizer: Literal["adamw", "muon"] | None = None
    """Muon makes the steps of a Transformer's matrices orthogonal (default where a text model begins from nothing)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation loss before training stops."""
    label_smoothing: Share | None = None
    """Share of the probability that is spread over all tokens or items (Szegedy 2016), where a text or a dialogue is
    written or items are ranked (default: 0.1 for a text from scratch, else 0)."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weighs each class by the inverse of its share; probabilities are corrected back."""
    augment: AugmentSettings | None = None
    """Changes made to the training texts and pictures."""
    mixup: Annotated[float, Field(ge=0, le=100)] | None = None
    """Rows are mixed with others by a share from Beta(mixup, mixup) (Zhang 2018)."""
    cutmix: Annotated[float, Field(ge=0, le=100)] | None = None
    """A part of each picture is cut from another row's, by a share from Beta(cutmix, cutmix) (Yun 2019)."""
    consistency: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Every row is read twice, and differing answers cost this much (R-Drop, Liang 2021)."""
    column_dropout: Share | None = None
    """Share of a row's columns that are hidden while it is learnt, as if they were missing; never all of them."""
    fairness: FairnessSettings | None = None
    """Treat groups more alike, where one of two classes is looked for."""
    dropout_schedule: Literal["early", "late", "rising"] | None = None
    """Dropout in the first half of the training only, in the second only, or growing from none (Liu 2023)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; `auto` takes bfloat16 where the machine multiplies it in hardware."""
    canaries: Annotated[int, Field(ge=1, le=100)] | list[str] | None = None
    """Secrets that are planted among the training texts of a next_token model, for `weft audit` to look for: so many of
    ours, or texts with a number of four digits or more."""
    federated: FederatedSettings | None = None
    """Every step is a round, to which each owner gives a clipped update of its own rows and nothing else."""
    privacy: PrivacySettings | None = None
    """Train so that nobody can tell whether a row was learnt from."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0

    @model_validator(mode="after")
    def _planted(self) -> TrainingSettings:
        for text in self.canaries if isinstance(self.canaries, list) else ():
            if len(re.findall(r"[0-9]{4,}", text)) != 1:
                raise ValueError(
                    f"canaries: each must hold one number of four digits or more. Got {text!r}. Correct it"
                )
        return self

    @model_validator(mode="after")
    def _private(self) -> TrainingSettings:
        if self.privacy is None:
            return self
        mixes = [n for n in ("mixup", "cutmix") if getattr(self, n)]
        if mixes:
            raise ValueError(f"{listing(mixes)} mixes rows, privacy keeps them apart. Keep one of them")
        if self.class_weight:
            raise ValueError("class_weight is counted from the rows, without privacy. Keep one of them")
        if self.augment and self.augment.back_translation:
            raise ValueError("back_translation goes through models that may have learnt the rows. Remove it or privacy")
        if self.fairness and self.fairness.how != "thresholds":
            raise ValueError(f"fairness by {self.fairness.how} looks at other rows. Take thresholds, or remove privacy")
        if self.patience:
            raise ValueError("patience: a private training makes all its steps, for which its noise is. Remove it")
        if self.accumulate:
            raise ValueError("accumulate: rows of a private step are computed in parts anyway. Remove it")
        if self.precision == "bfloat16":
            raise ValueError("precision: private gradients are float32. Remove it")
        return self

    @model_validator(mode="after")
    def _one_of(self) -> TrainingSettings:
        given = [n for n in ("mixup", "cutmix", "consistency") if getattr(self, n)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other. Remove one of them")
        if self.fairness and self.fairness.how != "thresholds":
            also = [*given, *(["class_weight"] if self.class_weight else [])]
            also += ["accumulate"] if self.accumulate and self.fairness.how == "penalty" else []
            if also:
                raise ValueError(
                    f"fairness by {self.fairness.how} and {' and '.join(also)} exclude each other. Remove one"
                )
        if self.accumulate and (self.mixup or self.cutmix or (self.consistency and self.class_weight)):
            odd = "mixup" if self.mixup else "cutmix" if self.cutmix else "class_weight with consistency"
            raise ValueError(f"{odd} needs all rows of a step at once. Remove it, or accumulate")
        return self


class ResultsSettings(_Settings):
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

    def _private(self, task: Task) -> None:
        if task in ("span", "embedding"):
            why = "a text is in many rows" if task == "span" else "each text is compared with those of others"
            raise ValueError(f"training.privacy: of target.type {task} {why}. Remove it")
        if self.preprocess.duplicates == "near":
            raise ValueError("preprocess.duplicates: near lets a row decide on others. Take exact, or remove privacy")
        if (self.model.copies or 1) > 1:
            raise ValueError("model.copies: each copy would spend epsilon anew. Remove it, or training.privacy")

    @property
    def baselines(self) -> bool:
        """Whether simple models are trained beside the model."""
        given = self.results.baselines
        return self.training.privacy is None if given is None else given


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
        said = [position for position, _ in found]  # by the reader of the YAML
        problems += (p for p in problems_of(error, Settings, root, name, origins or {}) if p[0] not in said)
    data = document.get("data")
    if needs_source and not found and not (data.get("source") if isinstance(data, Mapping) else data):
        problems.append(((-1, 0), f"{name}: data.source is missing. Name the file, glob or folder to read."))
    if problems or settings is None:
        raise SettingsError([text for _, text in sorted(problems, key=lambda p: p[0])])
    return settings
