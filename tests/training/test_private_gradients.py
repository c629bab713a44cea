"""Gradients of rows computed side by side are those of each row computed alone by plain autograd, then clipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.test_ranking_model import BACKBONES, data_of, made, model_of
from tests.tables import fused, numeric
from tests.texts import documents
from tests.training.test_train_language import BOTH, SIZE, make

from weft.config import Settings
from weft.data.plan import look
from weft.data.table import Table
from weft.features.batching import Batch, collate
from weft.features.documents import Marks
from weft.features.examples import Example, ExampleCorpus, Examples
from weft.features.fit import fit_columns
from weft.features.pieces import Corpus
from weft.features.ragged import take
from weft.features.store import TARGET
from weft.features.targets import OUTSIDE
from weft.features.windows import WINDOW
from weft.models.language import LanguageConfig, LanguageModel, reader_of
from weft.models.recurrent import RecurrentConfig
from weft.models.row import RowConfig, RowModels
from weft.models.transformer import TransformerConfig
from weft.preprocess.ingest import ingest, make_cleaner
from weft.progress import Silent
from weft.training.adapters import attach
from weft.training.private import RowGradients
from weft.training.reading import SpanObjective

TRANSFORMER = TransformerConfig(width=16, layers=2, heads=2)


def equal_to_one_by_one(model, loss, batch, alone, longest):
    """``alone``: each row as a batch of its own. Some rows must be clipped and some not."""
    model.eval()
    found = RowGradients(model, lambda b, done: loss(b)).clipped(batch, len(alone), longest, 0.0)
    wanted = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}
    lengths = []
    for one in alone:
        model.zero_grad()
        loss(one).backward()
        own = {n: p.grad if p.grad is not None else 0 * p for n, p in model.named_parameters() if p.requires_grad}
        lengths.append(torch.cat([g.flatten() for g in own.values()]).norm().item())
        for name, g in own.items():
            wanted[name] += g * min(1.0, longest / max(lengths[-1], 1e-12))
    assert min(lengths) < longest < max(lengths), lengths
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name].view_as(value), value, rtol=1e-4, atol=1e-5, msg=name)


def columns_of(table, target, folder):
    table, settings = Table.of(table), Settings(target=target)
    plan = look(settings, table)
    cleaner = make_cleaner(settings, plan)
    clean, _, _ = ingest(settings, plan, table, cleaner, folder / "clean.arrow", folder / "rejected.parquet", Silent())
    columns = fit_columns(settings, plan, clean, cleaner)
    return columns, columns.encode(next(clean.batches()), with_target=True)


@pytest.mark.parametrize("kind", ["class", "number", "rnn", "lora", "summary"])
def test_of_rows(kind, tmp_path):
    target = "y" if kind == "number" else "bought"
    columns, codes = columns_of(numeric(120) if kind == "number" else fused(120), target, tmp_path)
    backbone = RecurrentConfig(16, 1, "gru") if kind == "rnn" else TRANSFORMER
    config = RowConfig(backbone, 16, 0.0, linear=("number", "category", "time"), smoothing=0.05)
    if kind == "summary":
        config = replace(config, summaries={"review": 3})
    torch.manual_seed(0)
    model = RowModels(columns.codecs, columns.target, config, 1).each()[0]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if kind == "lora":
        model.requires_grad_(False)
        attach(model.backbone, 2)
        for name, parameter in model.named_parameters():
            if "lora_b" in name:
                torch.nn.init.normal_(parameter)
    rows = np.arange(9)
    picked = {c: {n: take(a, rows) for n, a in f.items()} for c, f in codes.items()}
    alone = [{c: {n: take(a, rows[i : i + 1]) for n, a in f.items()} for c, f in codes.items()} for i in rows]
    if kind == "class":
        for one in (picked, alone[3]):  # a row that is of none of the classes
            one[TARGET]["value"] = one[TARGET]["value"].copy()
        picked[TARGET]["value"][3] = alone[3][TARGET]["value"][0] = OUTSIDE
    batches = [collate(one, 1) for one in alone]
    lengths = []
    for one in batches:
        model.zero_grad()
        model.loss(one).backward()
        lengths.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item())
    equal_to_one_by_one(model, model.loss, collate(picked, len(rows)), batches, float(np.median(lengths)) * 1.001)


@pytest.mark.parametrize("shape", ["writing", "reading", "rewriting", "bert", "grouped", "gru", "both ways"])
def test_of_texts(shape):
    random = np.random.default_rng(0)
    texts = [random.integers(3, SIZE, n) for n in (1, 40, 2, 16, 9)]
    if shape == "rewriting":
        found = Examples.held(
            Example(i, t.tolist(), [k > 1 for k in range(len(t))], 2, "x")
            for i, t in enumerate(texts)
            if 3 < len(t) < 17
        )
        corpus = ExampleCorpus(found, Marks(None, 2, 1), 16, 0, prefixed=True, pack=False)
        cuts = corpus.cuts(np.arange(len(found.row)))
    else:
        masked = SIZE if shape in ("reading", "bert", "both ways") else None
        corpus = Corpus(documents(texts), Marks(None, 2, 1), 16, masked=masked, pack=False)
        cuts = corpus.cuts(np.arange(len(texts)))
    numbers = np.arange(len(cuts))
    model = make(BOTH[shape])
    alone = [corpus.batch(cuts, numbers[i : i + 1], 1) for i in numbers]
    full = [one for one in alone if (one.targets_BT != -100).any()]
    lengths = [_length(model, one) for one in full]
    equal_to_one_by_one(model, model.loss, corpus.batch(cuts, numbers, 1), alone, float(np.median(lengths)) * 1.001)


def _length(model, batch):
    model.eval().zero_grad()
    model.loss(batch).backward()
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()


@pytest.mark.parametrize("types", [1, 2])
def test_of_windows_with_answers(types):
    random = np.random.default_rng(0)
    shape = TransformerConfig(width=16, layers=2, heads=2, attention="reading", max_positions=20)
    torch.manual_seed(0)
    model = SpanObjective(reader_of(LanguageModel(LanguageConfig(shape, SIZE, output="none", types=types)), True))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    sizes = np.array([9, 20, 6, 14, 7])
    ids = np.full((5, 20), -1)
    for row, size in enumerate(sizes):
        ids[row, :size] = random.integers(3, SIZE, size)
    begin = np.array([4, 0, 5, 7, 0])  # two without an answer
    fields = {"tokens": ids, "context": np.full(5, 4), "stop": sizes - 1, "begin": begin, "end": begin}

    def batch(rows):
        return Batch({WINDOW: {n: torch.from_numpy(a[rows]) for n, a in fields.items()}}, None, len(rows))

    alone = [batch(np.array([row])) for row in range(5)]
    longest = float(np.median([_length(model, one) for one in alone])) * 1.001
    equal_to_one_by_one(model, model.loss, batch(np.arange(5)), alone, longest)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_of_users(backbone):
    model, data = model_of(backbone), data_of(made((9, 4, 2, 6)))
    cuts = data.cuts()
    numbers = np.arange(len(cuts))
    alone = [data.batch(cuts, numbers[i : i + 1], 1) for i in numbers]
    lengths = [_length(model, one) for one in alone if (one.targets_BT != -100).any()]
    equal_to_one_by_one(model, model.loss, data.batch(cuts, numbers, 1), alone, float(np.median(lengths)) * 1.001)


def test_a_row_that_is_not_finite_counts_nothing():
    model = torch.nn.Linear(2, 1)

    class Rows:
        x = torch.tensor([[1.0, 2.0], [torch.inf, 1.0], [3.0, -1.0]])

        def row(self, place):
            return self.x[place]

    found = RowGradients(model, lambda x, done: model(x).sum()).clipped(Rows(), 3, 100.0, 0.0)
    np.testing.assert_allclose(found["weight"].numpy(), [4.0, 1.0])
    np.testing.assert_allclose(found["bias"].numpy(), [2.0])
