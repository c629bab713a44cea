"""Column dropout hides as many columns as it says, never all, as if they were missing, by seed, epoch and row."""

import numpy as np
import pyarrow as pa
import pytest
from tests.tables import mixed, numeric

import weft
from weft.config import Settings, loads
from weft.data.plan import look
from weft.data.table import Table
from weft.errors import SettingsError
from weft.features.codecs import Ragged
from weft.features.column_dropout import ColumnDropout
from weft.features.fit import fit_columns
from weft.features.ragged import take
from weft.preprocess.ingest import ingest, make_cleaner
from weft.progress import Silent


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    table, settings = Table.of(mixed(2_000)), Settings(target="bought")
    plan = look(settings, table)
    path = tmp_path_factory.mktemp("rows") / "clean.arrow"
    cleaner = make_cleaner(settings, plan)
    clean, _, _ = ingest(settings, plan, table, cleaner, path, path.with_name("rejected.parquet"), Silent())
    columns = fit_columns(settings, plan, clean, cleaner)
    return columns, next(clean.batches())


def cells(codes):
    """Of each column its rows, each as the bytes of all its fields."""
    found = {}
    for name, fields in codes.items():
        rows = len(next(iter(fields.values())).offsets) - 1 if isinstance(next(iter(fields.values())), Ragged) else None
        rows = rows if rows is not None else len(next(iter(fields.values())))
        found[name] = [
            b"".join(
                a.values[a.offsets[i] : a.offsets[i + 1]].tobytes() if isinstance(a, Ragged) else a[i].tobytes()
                for a in fields.values()
            )
            for i in range(rows)
        ]
    return found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_hidden_cell_is_a_missing_one_and_their_share_is_as_asked(parts, share):
    columns, clean = parts
    rows = np.arange(len(clean.rows))
    codes = columns.encode(clean)
    before, after = cells(codes), cells(ColumnDropout(columns, share, 0)(codes, rows, 0))
    names = sorted(before)
    blank = {
        c.name: cells({c.name: c.encode(pa.nulls(1, clean.columns[c.name].type))})[c.name][0] for c in columns.codecs
    }
    full = np.array([[before[n][i] != blank[n] for n in names] for i in rows])
    gone = np.array([[before[n][i] != after[n][i] for n in names] for i in rows])
    for n in names:
        assert {a for a, b in zip(after[n], before[n], strict=True) if a != b} == {blank[n]}
    # each hides by itself, and where all four would be hidden one stays
    expected = share - share**4 / 4
    assert gone[full].mean() == pytest.approx(expected, abs=0.03)
    complete = full.all(axis=1)
    assert not (gone.all(axis=1) & complete).any()
    pair = (gone[complete, 0] & gone[complete, 1]).mean()
    assert pair == pytest.approx(share**2 - share**4 / 2, abs=0.05)


def test_what_is_hidden_depends_on_seed_epoch_and_row_only(parts):
    columns, clean = parts
    rows = np.arange(300)
    codes = columns.encode(clean)
    some = {c: {n: take(a, rows) for n, a in f.items()} for c, f in codes.items()}
    base = cells(ColumnDropout(columns, 0.4, 1)(some, rows, 2))
    assert cells(some) != base  # and what was handed in is as it was
    turned = {c: {n: take(a, rows[::-1]) for n, a in f.items()} for c, f in codes.items()}
    assert {n: c[::-1] for n, c in cells(ColumnDropout(columns, 0.4, 1)(turned, rows[::-1], 2)).items()} == base
    assert cells(ColumnDropout(columns, 0.4, 1)(some, rows, 3)) != base
    assert cells(ColumnDropout(columns, 0.4, 2)(some, rows, 2)) != base


def test_a_model_that_learnt_so_does_better_without_a_column(tmp_path):
    """``y`` is told by two equal columns; a model that always had both leans on both."""
    a = np.random.default_rng(0).normal(size=1_500)
    table = pa.table({"a": a, "twin": a, "y": np.abs(a)})
    settings = {"model": {"width": 16, "layers": 1, "copies": 1}, "results": {"baselines": False}}
    losses = {}
    for share in (None, 0.3):
        training = {"epochs": 8, "batch_rows": 32, "learning_rate": 3e-3, "column_dropout": share}
        run = weft.train(table, "y", tmp_path / str(share), quiet=True, training=training, **settings)
        with pytest.warns(UserWarning, match="no 'twin'"):
            found = run.predict(table.drop_columns("twin"))["prediction"].to_numpy()
        losses[share] = float(np.mean((found - table["y"].to_numpy()) ** 2))
    assert losses[0.3] < 0.7 * losses[None]


class TestBadInput:
    def test_a_table_of_one_column(self, tmp_path):
        table = numeric(60).select(["a", "label"])
        with pytest.raises(SettingsError, match=r"training.column_dropout: hides some columns.*The table has one"):
            weft.train(table, "label", tmp_path / "run", quiet=True, training={"column_dropout": 0.1})
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("words", ["column_dropout: 1", "column_dropout: -0.1", "column_dropout: often"])
    def test_shares_that_cannot_be(self, words):
        with pytest.raises(SettingsError, match=r"training.column_dropout: must be"):
            loads(f"data: {{source: a.csv}}\ntarget: y\ntraining: {{{words}}}\n", "weft.yaml")
