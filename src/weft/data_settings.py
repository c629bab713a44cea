"""What a pipeline file says of the data, as frozen settings; :mod:`weft.config` reads the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from weft.errors import listing
from weft.training_settings import Share, StrictSettings, check_owners
from weft.yaml_text import shown

Personal = Literal["email", "phone", "id_number", "passport", "bank_card", "iban", "ip", "plate", "address", "name"]


class SplitSettings(StrictSettings):
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


def long_form(key: str) -> Callable[[Any], Any]:
    """A bare word is the short form of ``{key: word}``."""
    return lambda value: {key: value} if isinstance(value, str) else value


def _pair(value: Any) -> Any:
    """A list of two numbers, as YAML has it."""
    return (
        tuple(map(float, value)) if isinstance(value, list) and all(type(v) in (int, float) for v in value) else value
    )


ColumnType = Literal["text", "number", "category", "time", "image", "sequence", "off"]


class FeatureSettings(StrictSettings):
    """How a column is read; a bare type is the short form of ``{type: ...}``."""

    type: ColumnType
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
    range: Annotated[tuple[float, float] | None, BeforeValidator(_pair, json_schema_input_type=list[float] | None)] = (
        None
    )
    """What is black and what is white in arrays of numbers (image only; needed where they are floats)."""
    max_events: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Last events of a history that are read (sequence only; default: the 99th percentile, at most 100)."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between the items of a text cell (sequence only; guessed; a JSON array needs none)."""

    @model_validator(mode="after")
    def _fits_type(self) -> FeatureSettings:
        check_owners(self, {
            "max_tokens": ("text",), "summary": ("text", "image", "sequence"), "vocabulary": ("text",),
            "max_categories": ("category", "sequence"), "size": ("image",), "range": ("image",),
            "max_events": ("sequence",), "separator": ("sequence",),
        }, "{} columns")  # fmt: skip
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must go up, from black to white. Got {list(self.range)}")
        return self


Feature = Annotated[
    FeatureSettings, BeforeValidator(long_form("type"), json_schema_input_type=ColumnType | FeatureSettings)
]


class ItemsSettings(StrictSettings):
    """What is known of the items that are recommended."""

    source: Annotated[str | list[str], BeforeValidator(_addresses)]
    """A table with one row an item: file, list of files, glob, folder or fsspec address."""
    id: str | None = None
    """Its column of item ids (default: the name of the target's column)."""
    features: dict[str, Feature] = Field(default_factory=dict)
    """Column to type; columns not named are guessed, `off` leaves one out."""


class DataSettings(StrictSettings):
    """What is read, and which of its rows are learnt from."""

    source: Annotated[str | list[str] | None, BeforeValidator(_addresses)] = None
    """File, list of files, glob, folder or fsspec address of CSV, JSON Lines, Parquet, Arrow or plain text; or a folder
    of pictures with a class a sub-folder."""
    items: ItemsSettings | None = None
    """What is known of the items that are recommended, beside who had them (target type ranking only)."""
    format: Literal["csv", "jsonl", "parquet", "arrow", "text", "squad"] | None = None
    """Said only where the file's ending does not tell."""
    split: SplitSettings = SplitSettings()
    """Which rows are learnt from, watched and judged on."""
    max_rejected: Share = 0.01
    """Share of rows that may be set aside as bad before the run stops."""


def _kinds(value: Any) -> Any:
    """`all`, or a list, is the short form of ``{kinds: ...}``."""
    return {"kinds": value} if isinstance(value, (str, list)) else value


class RedactSettings(StrictSettings):
    """Personal data in texts, categories and labels that is replaced before anything is learnt, kept or shown of it."""

    kinds: Annotated[
        list[Personal],
        BeforeValidator(
            lambda v: list(get_args(Personal)) if v == "all" else v,
            json_schema_input_type=Literal["all"] | Annotated[list[Personal], Field(min_length=1)],
        ),
        Field(min_length=1),
    ]
    """What is replaced: email, phone, id_number, passport, bank_card, iban, ip, plate, address, name; or all."""
    key: str | None = None
    """A file with the secret of stand-ins that tell one value from another, made where it is not there; `weft predict`
    needs it too (default: a value is replaced by its kind alone)."""
    names: str | None = None
    """A Hugging Face folder of BERT's shape that tells the class of each token (B-PER, I-PER, B-address, ...), which
    finds names and addresses beside the rules; `weft predict` needs it too."""

    @model_validator(mode="after")
    def _reads_names(self) -> RedactSettings:
        if self.names is not None and not {"name", "address"} & set(self.kinds):
            raise ValueError(f"names: a model finds the kinds name and address. Got {listing(self.kinds)}. Add one")
        return self


class PreprocessSettings(StrictSettings):
    """What is done to the rows before anything is learnt from them."""

    normalize: Literal["nfkc", "nfc", "off"] | None = None
    """Unicode form of texts and categories (default: nfkc; nfc where text is written, which keeps full-width
    punctuation); `off` leaves every character as it came."""
    duplicates: Literal["off", "exact", "near"] = "off"
    """Copies that are left out, each with the row it is a copy of (duplicates.parquet): `exact`, equal in all that is
    read; `near`, also those whose texts are alike. `off` only counts the equal ones: rows of a few numbers and
    categories may be equal and yet two people."""
    redact: Annotated[
        RedactSettings | None,
        BeforeValidator(_kinds, json_schema_input_type=Literal["all"] | list[Personal] | RedactSettings | None),
    ] = None
    """Kinds of personal data to replace, a list of them or all."""
