"""A start without numbers: the bits that come later are those of a model made as always, and so is all drawn after."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weft.models.checkpoints import load_hf, save_hf
from weft.models.deferred import deferred, numbers
from weft.models.embeddings import PiecewiseLinear
from weft.models.language import LanguageConfig, LanguageModel, reader_of
from weft.models.tensor_file import write_tensors
from weft.models.transformer import TransformerConfig
from weft.training.adapters import attach

WRITER = TransformerConfig(16, 2, 4, attention="writing")
READER = TransformerConfig(
    16, 2, 4, norm="layer", norm_at="after", positions="learned", feed_forward="gelu", biases="all", max_positions=20,
    embedding_norm=True,
)  # fmt: skip


def writer() -> nn.Module:
    return LanguageModel(LanguageConfig(WRITER, 30))


def reader() -> nn.Module:
    config = LanguageConfig(READER, 30, types=2, output="transform", pooler=True, labels=("a", "b"))
    return LanguageModel(config)


def adapted() -> nn.Module:
    model = LanguageModel(LanguageConfig(WRITER, 30))
    attach(model.backbone, 2)
    return model


def answerer() -> nn.Module:
    return reader_of(LanguageModel(LanguageConfig(READER, 30, types=2, output="transform")), span=True)


def written_in_parts() -> nn.Module:
    return PiecewiseLinear([torch.arange(4.0).numpy(), torch.arange(3.0).numpy()], 8)


@pytest.mark.parametrize("build", [writer, reader, adapted, answerer, written_in_parts, lambda: deepcopy(writer())])
def test_the_same_numbers_come_later(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    usual, drawn = build(), torch.rand(3)
    torch.manual_seed(3)
    with deferred():
        model = build().to("cpu")
    assert torch.equal(torch.rand(3), drawn)
    state = torch.get_rng_state()
    later = dict(model.named_parameters())
    assert any(p.is_meta for p in later.values())
    for name, p in usual.named_parameters():
        assert torch.equal(numbers(later[name])() if later[name].is_meta else later[name], p), name
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [WRITER, READER], ids=["llama", "bert"])
def test_a_checkpoint_is_left_in_its_files(shape: TransformerConfig, tmp_path: Path) -> None:
    config = LanguageConfig(
        shape, 30, types=0 if shape is WRITER else 2, output="linear" if shape is WRITER else "none"
    )
    model = LanguageModel(config)
    save_hf(model, tmp_path / "there")
    with deferred():
        found = load_hf(tmp_path / "there").model
    for (name, p), q in zip(model.named_parameters(), found.parameters(), strict=True):
        assert q.is_meta and torch.equal(numbers(q)(), p), name


def test_a_change_that_could_not_be_made_later_is_refused() -> None:
    with deferred(), pytest.raises(AssertionError, match="mul_ has nothing to change"):
        nn.Linear(2, 2).weight.data.mul_(2)
    with deferred(False):
        assert not nn.Linear(2, 2).weight.is_meta


def test_a_file_written_bit_by_bit_is_that_of_the_library(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "文": torch.randn(3, 5), "half": torch.randn(7).bfloat16(), "one": torch.tensor(4), "none": torch.empty(0, 3),
        "turned": torch.randn(4, 2).T, "yes": torch.tensor([True, False]),
    }  # fmt: skip
    like = {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in tensors.items()}
    write_tensors(tmp_path / "a", like, iter(tensors.values()))
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "b")
    ours, theirs = load_file(tmp_path / "a"), load_file(tmp_path / "b")
    assert ours.keys() == theirs.keys()
    assert all(ours[n].dtype == t.dtype and torch.equal(ours[n], t) for n, t in theirs.items())
