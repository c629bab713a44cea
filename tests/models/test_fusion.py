"""Several columns of every type in a row, in every backbone, long ones as summaries or whole: the same contract."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.tables import FAST, fused

import weft
from weft.config import Settings
from weft.data.plan import look
from weft.data.table import Table
from weft.errors import SettingsError
from weft.features.batching import collate
from weft.features.codecs import CODECS
from weft.features.columns import Columns
from weft.features.fit import fit_columns
from weft.features.ragged import take
from weft.models.recurrent import RecurrentConfig
from weft.models.row import RowConfig, RowModels
from weft.models.transformer import TransformerConfig
from weft.preprocess.ingest import ingest, make_cleaner
from weft.progress import Silent

READER = RowConfig(TransformerConfig(width=16, layers=2, heads=2), 16, 0.0, linear=("number", "category", "time"))
CONFIGS = {
    "transformer": READER,
    "writer": replace(READER, backbone=replace(READER.backbone, attention="writing")),
    "rnn": replace(READER, backbone=RecurrentConfig(16, 2, "gru")),
    "lstm": replace(READER, backbone=RecurrentConfig(16, 1, "lstm"), linear=()),
    "summary": replace(READER, summaries={"review": 3, "answer": 2, "front": 2, "had": 2}),
    "summary, rnn": replace(READER, backbone=RecurrentConfig(16, 1, "gru"), summaries={"review": 3}),
}
ROWS = np.arange(30)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    table, settings = Table.of(fused()), Settings(target="bought", features={"answer": {"type": "text"}})
    plan = look(settings, table)
    path = tmp_path_factory.mktemp("rows") / "clean.arrow"
    cleaner = make_cleaner(settings, plan)
    clean, _, _ = ingest(settings, plan, table, cleaner, path, path.with_name("rejected.parquet"), Silent())
    return fit_columns(settings, plan, clean, cleaner), next(clean.batches())


@pytest.fixture(scope="module", params=list(CONFIGS))
def parts(request, data):
    columns, clean = data
    torch.manual_seed(0)
    models = RowModels(columns.codecs, columns.target, CONFIGS[request.param], 1)
    for parameter in models.parameters():  # nothing may stay at its quiet zero start
        torch.nn.init.normal_(parameter, std=0.3)
    return columns, models.eval(), clean


def answers(models, codes, rows=ROWS):
    return models.predict(collate({c: {n: take(a, rows) for n, a in f.items()} for c, f in codes.items()}, len(rows)))


def nothing(columns, clean, name):
    codec = next(c for c in columns.codecs if c.name == name)
    return codec.encode(pa.nulls(len(clean.rows), clean.columns[name].type))


def test_the_table_has_several_columns_of_each_type(data):
    kinds = list(data[0].types.values())
    assert all(kinds.count(kind) >= 2 for kind in set(kinds)) and set(kinds) == set(CODECS)


def test_the_order_of_the_columns_is_no_matter(parts):
    columns, models, clean = parts
    base = answers(models, columns.encode(clean))
    backwards = Columns(columns.cleaner, columns.codecs[::-1], columns.target, columns.tokenizer)
    again = RowModels(backwards.codecs, columns.target, models.each()[0].config, 1).eval()
    again.load_state_dict(models.state_dict())
    codes = columns.encode(clean)
    torch.testing.assert_close(answers(again, {n: codes[n] for n in reversed(list(codes))}), base, atol=1e-6, rtol=0)


def test_a_row_depends_neither_on_its_batch_nor_on_its_place(parts):
    columns, models, clean = parts
    codes = columns.encode(clean)
    together = answers(models, codes)
    assert together.std(0).max() > 0.01
    alone = torch.cat([answers(models, codes, ROWS[i : i + 1]) for i in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, answers(models, codes, ROWS[::-1].copy()).flip(0), atol=1e-5, rtol=0)


def test_a_null_in_each_column_in_turn_changes_the_answer_and_fails_nothing(parts):
    columns, models, clean = parts
    codes = columns.encode(clean)
    base = answers(models, codes)
    for name in codes:
        got = answers(models, {**codes, name: nothing(columns, clean, name)})
        assert torch.isfinite(got).all() and not torch.allclose(base, got, atol=1e-4), name


def test_a_row_of_which_all_is_null_but_one_column_is_answered_by_it(parts):
    columns, models, clean = parts
    codes = columns.encode(clean)
    empty = {name: nothing(columns, clean, name) for name in codes}
    nowhere = answers(models, empty)
    assert torch.isfinite(nowhere).all() and torch.equal(nowhere[:1].expand_as(nowhere), nowhere)
    for name in codes:
        got = answers(models, {**empty, name: codes[name]})
        assert torch.isfinite(got).all() and not torch.allclose(nowhere, got, atol=1e-4), name


def test_every_column_learns(parts):
    """A step of training reaches the embedding of every column, though some rows lack it."""
    columns, models, clean = parts
    model = models.each()[0]
    codes = columns.encode(clean, with_target=True)
    rows = np.arange(len(clean.rows))
    batch = collate({c: {n: take(a, rows) for n, a in f.items()} for c, f in codes.items()}, len(rows))
    model.loss(batch).backward()
    slope = model.embedding.column.weight.grad
    assert torch.isfinite(slope).all() and (slope[1:].abs().sum(dim=1) > 0).all()
    models.zero_grad()


@pytest.mark.parametrize("backbone", ["transformer", "rnn"])
def test_a_run_with_summaries_and_hidden_columns_is_loaded_as_it_was(backbone, tmp_path):
    features = {"review": {"type": "text", "max_tokens": 1100}, "answer": {"type": "text", "summary": 2},
                "front": {"type": "image", "summary": 5}}  # fmt: skip
    run = weft.train(
        fused(), "bought", tmp_path / "run", quiet=True, features=features, results={"baselines": False},
        model={**FAST["model"], "backbone": backbone}, training={**FAST["training"], "column_dropout": 0.2},
    )  # fmt: skip
    assert run.model.each()[0].config.summaries == {"review": 16, "answer": 2, "front": 5}
    found = run.predict(fused(40))
    assert weft.load(run.path).predict(fused(40)).equals(found)
    turned = fused(40).select(fused(40).schema.names[::-1])
    assert weft.load(run.path).predict(turned).equals(found)


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"features": {"colour": {"type": "category", "summary": 4}}}, "for text, image or sequence columns"),
            ({"features": {"review": {"type": "text", "summary": 2000}}}, "less than or equal to 1024"),
            ({"features": {"review": {"type": "text", "summary": 4}}, "model": {"from": "x"}}, "reads every token"),
            ({"features": {"review": {"type": "text", "summary": 4}}, "target": {"next_token": "review"}},
             r"'features.review.summary' is for a target column of a row, not next_token"),
        ],
    )  # fmt: skip
    def test_summaries_that_cannot_be(self, changes, words):
        with pytest.raises(SettingsError, match=words):
            weft.Pipeline({"target": "bought", **changes})
