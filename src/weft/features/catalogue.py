"""The catalogue: every item that can be recommended, those with events first, and what is known of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from weft.data import columns as kinds
from weft.data.table import Table
from weft.data_settings import ItemsSettings
from weft.errors import CheckpointError, DataError, SettingsError, did_you_mean, listing
from weft.features.codecs import Codec, TextCodec
from weft.features.columns import TOKENIZER_FILE, codecs_from, codecs_state
from weft.features.fit import fit_codecs, new_codecs
from weft.features.store import RowCodes
from weft.files import write_whole
from weft.preprocess.clean import CleanBatch, Cleaner, ColumnPlan
from weft.preprocess.letters import Letters

CATALOGUE_FILE, CODECS_FILE = "catalogue.arrow", "columns.json"
_TITLES = ("title", "name", "titel", "标题", "名称", "名字")


@dataclass
class Catalogue:
    """Items in the order of their codes, which count from 1.

    names: ids [V]. counts: training events of each [V]; ``known`` of them have some and stand first. columns: what is
    known of each, cleaned, and their codecs; empty where nothing is.
    """

    names: pa.Array
    counts: np.ndarray
    known: int
    columns: dict[str, pa.Array]
    codecs: list[Codec]

    def __len__(self) -> int:
        return len(self.names)

    def codes_of(self, ids: pa.Array) -> np.ndarray:
        """The code of each id; 0 where it is not in the catalogue."""
        found = pc.index_in(ids, value_set=self.names)
        return pc.fill_null(pc.add(found.cast(pa.int64()), 1), 0).to_numpy(zero_copy_only=False)

    def encode(self) -> RowCodes:
        """What is known of every item, encoded."""
        return {c.name: c.encode(self.columns[c.name]) for c in self.codecs}

    def titles(self, codes: Sequence[int] | np.ndarray) -> list[str]:
        """What a person calls the items: their title where there is one, else their id."""
        names = [self.names[int(c) - 1].as_py() if c else "(not in the catalogue)" for c in codes]
        column = next((n for word in _TITLES for n in self.columns if n.lower() == word), None)
        column = column or next((c.name for c in self.codecs if c.type == "text"), None)
        if column is None:
            return names
        titles = [self.columns[column][int(c) - 1].as_py() if c else None for c in codes]
        return [t if isinstance(t, str) else n for t, n in zip(titles, names, strict=True)]

    def save(self, folder: Path) -> None:
        columns = {f"column {n}": a for n, a in self.columns.items()}
        table = pa.table({"item": self.names, "count": pa.array(self.counts, pa.int64()), **columns})
        with pa.OSFile(str(folder / CATALOGUE_FILE), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
        stored = {"format": 1, "known": self.known, "codecs": codecs_state(self.codecs)}
        write_whole(folder / CODECS_FILE, json.dumps(stored, ensure_ascii=False, indent=1) + "\n")
        texts = [c for c in self.codecs if isinstance(c, TextCodec)]
        if texts and texts[0].tokenizer is not None:
            write_whole(folder / TOKENIZER_FILE, texts[0].tokenizer.to_str())

    @classmethod
    def load(cls, folder: Path) -> Catalogue:
        """Raises CheckpointError where the files are not what Weft wrote."""
        try:
            stored = json.loads((folder / CODECS_FILE).read_text(encoding="utf-8"))
            with pa.memory_map(str(folder / CATALOGUE_FILE), "r") as stream:
                table = pa.ipc.open_file(stream).read_all().combine_chunks()
            codecs = codecs_from(stored["codecs"])
            known = int(stored["known"])
        except (OSError, KeyError, TypeError, pa.ArrowException, json.JSONDecodeError) as error:
            raise CheckpointError(f"{folder / CATALOGUE_FILE}: must be what Weft wrote. Got: {error!r}.") from None
        if any(isinstance(c, TextCodec) for c in codecs):
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            tokenizer.encode_special_tokens = True
            for codec in codecs:
                if isinstance(codec, TextCodec):
                    codec.tokenizer = tokenizer
        columns = {n.removeprefix("column "): _whole(table.column(n)) for n in table.schema.names[2:]}
        return cls(_whole(table.column("item")), table.column("count").to_numpy(), known, columns, codecs)


def fit_catalogue(
    names: pa.Array, counts: np.ndarray, most: int, items: ItemsSettings | None, column: str, letters: Letters
) -> tuple[Catalogue, np.ndarray, list[str]]:
    """The catalogue of items that training events hold, the most frequent first, and of those of the table of items.

    Args:
        names, counts: items of all events, and how many training events hold each.
        column: the target's column.

    Returns:
        the catalogue; the code of each of ``names``; what to tell a person.
    """
    both = pa.table({"count": counts, "name": names})
    order = pc.sort_indices(both, [("count", "descending"), ("name", "ascending")]).to_numpy()
    order = order[counts[order] > 0]
    said = []
    if len(order) > most:
        said.append(f"{len(order) - most:,} items are too rare to be kept (features.{column}.max_categories)")
        order = order[:most]
    known = names.take(pa.array(order))
    if items is None:
        found = Catalogue(known, counts[order], len(order), {}, [])
    else:
        found, more = _with_items(known, counts[order], items, column, letters)
        said += more
    return found, found.codes_of(names), said


def _with_items(
    known: pa.Array, counts: np.ndarray, items: ItemsSettings, column: str, letters: Letters
) -> tuple[Catalogue, list[str]]:
    table = Table.open(items.source)
    name = items.id or column
    problems = [
        f"{table.name}: there is no column '{n}' ({where}).{did_you_mean(n, table.columns)} It has "
        f"{listing(table.columns, 20)}."
        for where, n in (("data.items.id", name), *((f"data.items.features.{f}", f) for f in items.features))
        if n not in table.columns
    ]
    if problems:
        raise SettingsError(problems)
    types, formats = _types(table, items, name)
    if not types:
        raise DataError(f"{table.name}: must say something of the items beside '{name}'. Got no column to read.")
    plans = {n: ColumnPlan(kind, formats.get(n)) for n, kind in types.items()} | {name: ColumnPlan("category")}
    cleaner, batches, rejected = Cleaner(plans, letters, name), [], 0
    for raw in table.batches(plans):
        clean = cleaner(raw)
        rejected += len(clean.rejected)
        batches.append(pa.RecordBatch.from_arrays([clean.columns[n] for n in plans], list(plans)))
    if not batches or not sum(b.num_rows for b in batches):
        raise DataError(f"{table.name}: must hold items. Got none.")
    whole = pa.Table.from_batches(batches)
    ids = _whole(whole.column(name))
    first = pc.index_in(pc.unique(ids), value_set=ids).to_numpy()
    cold = ids.take(pa.array(first)).filter(pc.invert(pc.is_in(ids.take(pa.array(first)), value_set=known)))
    names = pa.concat_arrays([known, cold])
    place = pc.index_in(names, value_set=ids)  # the first row of each; null where the table lacks it
    codecs = new_codecs(types, items.features)
    columns = {n: _whole(whole.column(n)).take(place) for n in types}
    seen = {n: a.slice(0, len(known)) for n, a in columns.items()} if len(known) else columns
    fit_codecs(codecs, lambda _: [CleanBatch(np.arange(len(known) or len(names)), seen, [])])
    missing = int(place.slice(0, len(known)).null_count)
    said = [f"{len(cold):,} items without a training event can be recommended by their columns ({listing(types)})"]
    for count, what in ((len(ids) - len(first), "rows of an item that came before are left out"),
                        (rejected, "rows of items are set aside as bad"),
                        (missing, "items with events are not in the table of items")):  # fmt: skip
        said += [f"{table.name}: {count:,} {what}"] if count else []
    return Catalogue(names, np.concatenate([counts, np.zeros(len(cold), np.int64)]), len(known), columns, codecs), said


def _types(table: Table, items: ItemsSettings, name: str) -> tuple[dict[str, str], dict[str, str | None]]:
    head = table.sample(kinds.SAMPLE_ROWS)
    types, formats = {}, {}
    for column in table.columns:
        given = items.features.get(column)
        kind = given.type if given else kinds.guess(column, head.column(column)).type
        if column != name and kind not in ("off", "sequence"):
            types[column] = kind
            if kind == "time":
                formats[column] = kinds.time_format([str(v) for v in head.column(column).drop_null().to_pylist()])
    return types, formats


def _whole(column: Any) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
