"""Answers of a BERT with an answer head are those of transformers; spans those of a search of all."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForQuestionAnswering

from weft.features.batching import collate
from weft.features.ragged import take
from weft.features.windows import WINDOW, Frame, cut_windows
from weft.inference.answers import Answerer
from weft.models.checkpoints import load_hf, save_hf
from weft.models.language import LanguageModel, reader_of
from weft.models.tokenizer_files import load_tokenizer
from weft.training.reading import SpanObjective, span_logits

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", "花", "海", "🙂", "?", "."]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=48,
    )  # fmt: skip
    model = BertForQuestionAnswering(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3)
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return model, folder


def ours(folder) -> tuple[LanguageModel, Tokenizer]:
    model, tokenizer = load_hf(folder).model, load_tokenizer(folder)
    assert isinstance(model, LanguageModel) and tokenizer is not None
    return model, tokenizer


def texts(rows, seed=0, most=25):
    random = np.random.default_rng(seed)
    letters = WORDS[5:]
    contexts = [" ".join(random.choice(letters, random.integers(1, most))) for _ in range(rows)]
    return [f"{random.choice(letters)} {random.choice(letters)} ?" for _ in range(rows)], contexts


def test_logits_and_loss_are_those_of_transformers(original):
    model, folder = original
    weft, tokenizer = ours(folder)
    questions, contexts = texts(6)
    windows = cut_windows(questions, contexts, tokenizer, Frame.of(tokenizer), 48)
    assert len(windows.row) == 6
    inputs = {"input_ids": [], "token_type_ids": [], "attention_mask": []}
    encoded = tokenizer.encode_batch(list(zip(questions, contexts, strict=True)))
    width = max(map(len, encoded))
    for e in encoded:
        for name, values in zip(inputs, (e.ids, e.type_ids, e.attention_mask), strict=True):
            inputs[name].append(values + [0] * (width - len(e)))
    tensors = {name: torch.tensor(values) for name, values in inputs.items()}
    with torch.no_grad():
        expected = model(**tensors)
    targets = windows.targets(np.zeros(6, np.int64), np.ones(6, np.int64))
    batch = collate({WINDOW: {**windows.codes(), **targets}}, 6)
    fields = batch.columns[WINDOW]
    assert torch.equal(fields["tokens"].clamp(min=0), tensors["input_ids"])
    with torch.no_grad():
        found = span_logits(weft, fields)
    allowed = torch.isfinite(found[..., 0])
    assert torch.equal(allowed.sum(1), torch.from_numpy(windows.stop - windows.context) + 1)
    for place, logits in enumerate((expected.start_logits, expected.end_logits)):
        torch.testing.assert_close(found[..., place][allowed], logits[allowed], atol=1e-5, rtol=0)
    # the loss of transformers, over the places where an answer may be
    start, end = (logits.masked_fill(~allowed, -torch.inf) for logits in (expected.start_logits, expected.end_logits))
    reference = (
        torch.nn.functional.cross_entropy(start, fields["begin"])
        + torch.nn.functional.cross_entropy(end, fields["end"])
    ) / 2
    torch.testing.assert_close(SpanObjective(weft).loss(batch), reference, atol=1e-5, rtol=0)


def test_transformers_reads_what_is_written(original, tmp_path):
    model, folder = original
    weft, tokenizer = ours(folder)
    assert save_hf(weft, tmp_path / "out", tokenizer) == "bert"
    again = BertForQuestionAnswering.from_pretrained(tmp_path / "out")
    ids = torch.randint(5, len(WORDS), (2, 9))
    with torch.no_grad():
        a, b = model(ids), again(ids)
    torch.testing.assert_close(a.start_logits, b.start_logits)
    torch.testing.assert_close(a.end_logits, b.end_logits)


def test_a_head_is_kept_and_one_is_made_where_there_is_none(original):
    weft, _ = ours(original[1])
    kept = reader_of(weft, span=True)
    assert torch.equal(kept.span.weight, weft.span.weight)
    plain = reader_of(weft)
    assert not hasattr(plain, "span") and torch.equal(plain.table.weight, weft.table.weight)
    made = reader_of(plain, span=True)
    assert made.span.weight.abs().max() > 0 and not made.span.bias.any()


@pytest.mark.parametrize("longest", [12, 20, 48])
def test_the_best_span_over_the_windows_is_that_of_a_search_of_all(original, longest):
    weft, tokenizer = ours(original[1])
    questions, contexts = texts(20, seed=1, most=60)
    most = 4
    found = Answerer(weft, tokenizer, longest, most, 0.0)(questions, contexts)
    windows = cut_windows(questions, contexts, tokenizer, Frame.of(tokenizer), longest)
    for row in range(20):
        best, nothing, every = (-np.inf, ""), np.inf, []
        for w in np.flatnonzero(windows.row == row):
            codes = {n: take(a, np.array([w])) for n, a in windows.codes().items()}
            with torch.no_grad():
                logits = span_logits(weft, collate({WINDOW: codes}, 1).columns[WINDOW])[0].double().numpy()
            nothing = min(nothing, logits[0].sum())
            for i in range(windows.context[w], windows.stop[w]):
                for j in range(i, min(i + most, windows.stop[w])):
                    score = logits[i, 0] + logits[j, 1]
                    every.append(score)
                    a, b = windows.characters(w, i, j)
                    if score > best[0] + 1e-6:
                        best = (score, contexts[row][a:b])
        assert found.text[row] == best[1]
        assert contexts[row][found.start[row] : found.end[row]] == found.text[row]
        total = np.logaddexp.reduce([*every, nothing])
        np.testing.assert_allclose(found.margin[row], best[0] - nothing, atol=1e-4)
        np.testing.assert_allclose(found.probability[row], np.exp(best[0] - total), rtol=1e-3)
        np.testing.assert_allclose(found.nothing[row], np.exp(nothing - total), rtol=1e-3)


def test_an_answer_does_not_depend_on_its_batch(original):
    weft, tokenizer = ours(original[1])
    questions, contexts = texts(12, seed=2, most=50)
    answerer = Answerer(weft, tokenizer, 24, 5, 0.0)
    together = answerer(questions, contexts)
    for row in range(12):
        alone = answerer(questions[row : row + 1], contexts[row : row + 1])
        assert alone.text[0] == together.text[row] and alone.start[0] == together.start[row]
        np.testing.assert_allclose(alone.margin[0], together.margin[row], atol=1e-4)


def test_the_threshold_says_who_is_answered(original):
    weft, tokenizer = ours(original[1])
    questions, contexts = texts(12, seed=2)
    answerer = Answerer(weft, tokenizer, 48, 5, -np.inf)
    found = answerer(questions, contexts)
    assert found.given(-np.inf).all() and not found.given(np.inf).any()
    middle = float(np.median(found.margin))
    answerer.threshold = middle
    columns = answerer.as_columns(found)
    given = found.margin > middle
    assert [p is not None for p in columns["prediction"].to_pylist()] == given.tolist()
    np.testing.assert_allclose(
        columns["probability"].to_numpy(), np.where(given, found.probability, found.nothing), rtol=1e-6
    )
