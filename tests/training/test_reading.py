"""InfoNCE against its definition; what equals a query's own text is no wrong answer."""

import numpy as np
import torch

from weft.features.batching import Batch
from weft.features.twins import DOCUMENT, QUERY
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.training.reading import PairObjective


def objective() -> PairObjective:
    torch.manual_seed(0)
    shape = TransformerConfig(width=16, layers=1, heads=2, attention="reading", max_positions=12)
    return PairObjective(LanguageModel(LanguageConfig(shape, 30, output="none"))).eval()


def batch(queries, documents, same_query=None, same_document=None) -> Batch:
    def column(rows, same):
        width = max(map(len, rows))
        tokens = torch.tensor([r + [-1] * (width - len(r)) for r in rows])
        return {"tokens": tokens, "same": torch.tensor(same or list(range(len(rows))))}

    return Batch(
        {QUERY: column(queries, same_query), DOCUMENT: column(documents, same_document)}, None, len(queries)
    )  # fmt: skip


QUERIES, DOCUMENTS = [[1, 2], [3], [4, 5, 6], [7, 8]], [[9], [10, 11, 12], [13, 14], [9]]


def vectors(model, rows):
    found = np.stack([model.pooled(torch.tensor([r])).detach().numpy()[0] for r in rows]).astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_loss_is_the_definition():
    made = objective()
    rows = slice(0, 3)
    with torch.no_grad():
        found = made.loss(batch(QUERIES[rows], DOCUMENTS[rows])).item()
    scores = vectors(made.model, QUERIES[rows]) @ vectors(made.model, DOCUMENTS[rows]).T / 0.05
    there = np.mean([np.logaddexp.reduce(scores[i]) - scores[i, i] for i in range(3)])
    back = np.mean([np.logaddexp.reduce(scores[:, i]) - scores[i, i] for i in range(3)])
    np.testing.assert_allclose(found, (there + back) / 2, rtol=1e-4)


def test_twins_are_no_wrong_answers():
    """Rows 0 and 3 have one document: neither is held against the other, in either direction."""
    made = objective()
    with torch.no_grad():
        found = made.loss(batch(QUERIES, DOCUMENTS, same_document=[0, 1, 2, 0])).item()
        blind = made.loss(batch(QUERIES, DOCUMENTS)).item()
        by_query = made.loss(batch(QUERIES, DOCUMENTS, same_query=[5, 1, 2, 5])).item()
    scores = vectors(made.model, QUERIES) @ vectors(made.model, DOCUMENTS).T / 0.05
    scores[0, 3] = scores[3, 0] = -np.inf
    there = np.mean([np.logaddexp.reduce(scores[i]) - scores[i, i] for i in range(4)])
    back = np.mean([np.logaddexp.reduce(scores[:, i]) - scores[i, i] for i in range(4)])
    np.testing.assert_allclose(found, (there + back) / 2, rtol=1e-4)
    np.testing.assert_allclose(by_query, found, rtol=1e-6)
    assert blind > found


def test_the_temperature_is_learnt():
    made = objective()
    made.loss(batch(QUERIES[:3], DOCUMENTS[:3])).backward()
    assert made.log_temperature.grad is not None and made.log_temperature.grad.abs() > 0
