"""A row's answer depends on the row: not on its batch, the padding, or the order of the columns."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.tables import pictured

from weft.config import Settings
from weft.data.plan import look
from weft.data.table import Table
from weft.features.batching import collate
from weft.features.codecs import MISSING, UNKNOWN, CategoryCodec
from weft.features.columns import Columns
from weft.features.fit import fit_columns
from weft.features.ragged import take
from weft.inference import predict
from weft.inference.predict import predict_codes
from weft.models.embeddings import CategoryEmbedding, PiecewiseLinear, TextEmbedding, calendar
from weft.models.linear import LinearPath
from weft.models.packed import PackedLinear
from weft.models.row import RowConfig, RowModels, combine
from weft.models.transformer import TransformerConfig
from weft.preprocess.ingest import ingest, make_cleaner
from weft.progress import Silent

CONFIG = RowConfig(
    TransformerConfig(width=16, layers=2, heads=2), 16, 0.0, linear=("number", "category", "time", "text")
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    had = [[f"i{(row * k) % 11}" for k in range(1, 1 + row % 7)] or None for row in range(400)]
    table = Table.of(pictured(400).drop_columns("side").append_column("had", pa.array(had)))
    settings = Settings(target="bought")
    plan = look(settings, table)
    cleaner = make_cleaner(settings, plan)
    path = tmp_path_factory.mktemp("rows") / "clean.arrow"
    clean, _, _ = ingest(settings, plan, table, cleaner, path, path.with_name("rejected.parquet"), Silent())
    columns = fit_columns(settings, plan, clean, cleaner)
    torch.manual_seed(0)
    models = RowModels(columns.codecs, columns.target, CONFIG, 2)
    for parameter in models.parameters():  # nothing may stay at its quiet zero start
        torch.nn.init.normal_(parameter, std=0.2)
    models.eval()
    return columns, models, next(clean.batches())


def answers(models, codes, rows):
    return models.predict(collate({c: {n: take(a, rows) for n, a in f.items()} for c, f in codes.items()}, len(rows)))


def test_a_row_does_not_depend_on_its_batch(parts):
    columns, models, clean = parts
    codes = columns.encode(clean)
    rows = np.arange(60)
    together = answers(models, codes, rows)
    alone = torch.cat([answers(models, codes, rows[i : i + 1]) for i in rows])
    mixed_up = answers(models, codes, rows[::-1].copy()).flip(0)
    assert together.std(0).max() > 0.01  # the answers do differ from row to row
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, mixed_up, atol=1e-5, rtol=0)
    by_budget = predict_codes(models, {c: {n: take(a, rows) for n, a in f.items()} for c, f in codes.items()}, 60)
    np.testing.assert_allclose(by_budget, together.numpy(), atol=1e-5)


def test_a_narrow_model_answers_by_packed_matrices_as_without(parts):
    columns, _, clean = parts
    torch.manual_seed(0)
    models = RowModels(columns.codecs, columns.target, RowConfig(TransformerConfig(64, 2, 4), 16, 0.0, ()), 2).eval()
    codes = columns.encode(clean)
    expected = answers(models, codes, np.arange(60)).numpy()
    np.testing.assert_allclose(predict_codes(models, codes, 60), expected, atol=1e-5)
    quick = predict.packed(models, torch.float32)
    assert sum(isinstance(m, PackedLinear) for m in quick.modules()) == 2 * 2 * 4
    assert not any(isinstance(m, PackedLinear) for m in models.modules())


def test_a_wide_model_answers_in_bfloat16_as_it_is_now(parts, monkeypatch):
    columns, _, clean = parts
    monkeypatch.setattr(predict, "machine_has_bfloat16", lambda device: True)
    torch.manual_seed(0)
    models = RowModels(columns.codecs, columns.target, RowConfig(TransformerConfig(256, 1, 4), 16, 0.0, ()), 2).eval()
    codes, state, before = columns.encode(clean), set(models.state_dict()), np.zeros((60, 2))
    for _ in range(2):
        exact, quick = (predict_codes(models, codes, 60, e) for e in (True, False))
        assert 0 < np.abs(exact - quick).max() < 0.03 < np.abs(exact - before).max()
        before = exact
        with torch.no_grad():  # as training does, in place
            models.each()[0].backbone.blocks[0].feed_forward.down.weight.mul_(-3)
            models.each()[1].head.read.down.bias.add_(torch.tensor([2.0, -2.0]))
    assert set(models.state_dict()) == state


def test_every_column_matters_and_its_order_does_not(parts):
    columns, models, clean = parts
    codes = columns.encode(clean)
    rows = np.arange(30)
    base = answers(models, codes, rows)
    backwards = {name: codes[name] for name in reversed(list(codes))}
    assert torch.equal(base, answers(models, backwards, rows))
    for name in codes:
        other = dict(codes)
        other[name] = {n: take(a, np.roll(np.arange(len(clean.rows)), 1)) for n, a in codes[name].items()}
        assert not torch.allclose(base, answers(models, other, rows), atol=1e-4), name


def test_missing_is_a_value_of_its_own(parts):
    columns, models, clean = parts
    codes = columns.encode(clean)
    base = answers(models, codes, np.arange(5))
    for codec in columns.codecs:
        kind = clean.columns[codec.name].type
        gone = {**codes, codec.name: codec.encode(pa.nulls(len(clean.rows), kind))}
        got = answers(models, gone, np.arange(5))
        assert torch.isfinite(got).all() and not torch.allclose(base, got, atol=1e-4), codec.name


def test_named_states_are_given_on_request_and_change_nothing(parts):
    columns, models, clean = parts
    codes = columns.encode(clean)
    batch = collate({c: {n: take(a, np.arange(4)) for n, a in f.items()} for c, f in codes.items()}, 4)
    model = models.each()[0]
    states = {}
    with torch.no_grad():
        plain, seen = model(batch), model(batch, states)
    torch.testing.assert_close(plain, seen, atol=1e-5, rtol=1e-5)
    attention = states["block00.attention"]
    assert attention.shape[:2] == (4, 2) and attention.shape[2] == attention.shape[3]
    torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))


def test_columns_saved_and_loaded_encode_the_same(parts, tmp_path):
    columns, models, clean = parts
    columns.save(tmp_path)
    again = Columns.load(tmp_path)
    assert again.dumps() == columns.dumps()
    rows = np.arange(len(clean.rows))
    assert torch.equal(answers(models, columns.encode(clean), rows), answers(models, again.encode(clean), rows))


def test_piecewise_linear_by_hand():
    unfold = PiecewiseLinear([np.array([0.0, 1.0, 3.0])], 3)
    with torch.no_grad():
        unfold.weight.copy_(torch.eye(3)[None])
        unfold.missing.fill_(9.0)
    value = torch.tensor([[-1.0], [0.5], [2.0], [5.0], [torch.nan]])
    expected = [[0, 0, -1], [0.5, 0, 0.5], [1, 0.5, 2], [1, 1, 4], [9, 9, 9]]
    torch.testing.assert_close(unfold(value)[:, 0], torch.tensor(expected, dtype=torch.float32))


def test_in_training_some_known_categories_are_shown_as_unknown_and_none_that_is_missing():
    codec = CategoryCodec("c")
    codec.categories = ["a", "b"]
    embedding = CategoryEmbedding([codec], 4)
    with torch.no_grad():
        embedding.table.weight.copy_(torch.arange(4.0)[:, None].expand(4, 4))  # each code has itself as its vector
    codes = torch.tensor([MISSING, UNKNOWN, 2, 3]).repeat_interleave(20_000)

    def shown():
        return embedding({"c": {"code": codes}})[0][:, 0, 0].reshape(4, -1)

    torch.manual_seed(0)
    trained = shown()
    assert (trained[MISSING] == MISSING).all() and (trained[UNKNOWN] == UNKNOWN).all()
    for code in (2, 3):
        assert set(trained[code].unique().tolist()) == {UNKNOWN, code}
        assert (trained[code] == UNKNOWN).float().mean().item() == pytest.approx(0.03, abs=0.005)
    embedding.eval()
    assert torch.equal(shown().flatten(), codes.float())


def test_in_training_a_quarter_of_the_tokens_is_hidden(parts):
    codec = next(c for c in parts[0].codecs if c.type == "text")
    embedding = TextEmbedding([codec], 4)
    hide = codec.tokenizer.token_to_id("<mask>")
    with torch.no_grad():
        embedding.table.weight.fill_(1.0)
        embedding.table.weight[hide] = 9.0
        embedding.neighbours.weight.zero_()
        embedding.neighbours.bias.zero_()
    tokens = torch.full((400, 50), hide + 5)
    tokens[:, 40:] = -1  # no tokens
    torch.manual_seed(0)
    states, mask = embedding({codec.name: {"tokens": tokens}})
    assert (states[~mask] == 1).all() and not mask[:, 40:].any()
    assert (states[mask] == 9).float().mean().item() == pytest.approx(0.25, abs=0.02)
    embedding.eval()
    assert (embedding({codec.name: {"tokens": tokens}})[0] == 1).all()


def test_calendar_is_pythons():
    random = np.random.default_rng(0)
    seconds = random.integers(-62_000_000_000, 200_000_000_000, 2_000)
    month, day, weekday, hour = calendar(torch.from_numpy(seconds))
    for i, s in enumerate(seconds.tolist()):
        t = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=s)
        assert (month[i], day[i], weekday[i], hour[i]) == (t.month - 1, t.day - 1, t.weekday(), t.hour)


def test_the_linear_path_is_linear_and_starts_at_zero(parts):
    columns, _, clean = parts
    path = LinearPath(columns.codecs, 2, frozenset(("number", "category", "time", "text"))).eval()
    codes = columns.encode(clean)
    batch = collate({c: {n: take(a, np.arange(50)) for n, a in f.items()} for c, f in codes.items()}, 50)
    assert not path(batch.columns).any()
    torch.manual_seed(0)
    for parameter in path.parameters():
        torch.nn.init.normal_(parameter)
    one = path(batch.columns)
    with torch.no_grad():
        for parameter in path.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(path(batch.columns), 2 * one)
    assert one.std() > 0.1


def test_copies_answer_with_the_mean_of_their_probabilities():
    p = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
    torch.testing.assert_close(combine(list(p.log()), "class", torch.ones(())), torch.tensor([[0.7, 0.3]]))
    torch.testing.assert_close(
        combine([torch.tensor([1.0]), torch.tensor([3.0])], "number", torch.ones(())), torch.tensor([2.0])
    )
