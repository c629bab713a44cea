"""Muon against the library's own, AdamW for the rest, and an exact way back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import Transformer, TransformerConfig
from weft.training.checkpoint import Checkpoints
from weft.training.muon import FASTER, TIMES, muon, orthogonal

RATE, DECAY = 3e-3, 0.1


def model(groups: int | None = None) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageConfig(TransformerConfig(16, 2, 4, groups=groups, attention="writing"), 40))


def learn(made: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * group["factor"]
        optimizer.zero_grad()
        made.loss(torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(step))).backward()
        optimizer.step()


def test_matrices_move_as_the_librarys_muon_and_the_rest_as_adamw() -> None:
    ours, theirs = model(), model()
    learn(ours, muon(ours, RATE, DECAY), 4)
    # the reference holds each matrix that is stored joined as a parameter of its own
    pieces: dict[str, list[nn.Parameter]] = {}
    others = []
    for name, p in theirs.named_parameters():
        if "blocks" in name and p.dim() == 2:
            count = 3 if "qkv" in name else 2 if ".up." in name else 1
            pieces[name] = [nn.Parameter(part.clone()) for part in p.detach().chunk(count)]
        else:
            others.append(p)
    first = torch.optim.Muon([p for ps in pieces.values() for p in ps], lr=FASTER * RATE, weight_decay=DECAY,
                             momentum=0.95, adjust_lr_fn="original", ns_steps=TIMES)  # fmt: skip
    second = torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(4):
        theirs.zero_grad()
        theirs.loss(torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(step))).backward()
        for name, parts in pieces.items():
            for part, gradient in zip(parts, theirs.get_parameter(name).grad.chunk(len(parts)), strict=True):
                part.grad = gradient
        first.step()
        second.step()
        with torch.no_grad():
            for name, parts in pieces.items():
                theirs.get_parameter(name).copy_(torch.cat(list(parts)))
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # bfloat16 inside: products in another order differ in the last of its digits
        torch.testing.assert_close(a, b, atol=2e-3 if "blocks" in name and a.dim() == 2 else 2e-4, rtol=0)
        assert (a - model().get_parameter(name)).abs().max() > 5e-3, name


def test_orthogonal_gives_singular_values_near_one_and_the_same_directions() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 24, 10) * torch.tensor([1e-4, 1.0, 1e4])[:, None, None]
    for made, given in zip(orthogonal(matrices).float(), matrices, strict=True):
        u, _, v = torch.linalg.svd(given, full_matrices=False)
        assert torch.linalg.svdvals(made).min() > 0.6 and torch.linalg.svdvals(made).max() < 1.3
        assert torch.nn.functional.cosine_similarity(made.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_every_parameter_is_in_one_group_and_tables_are_not_orthogonal() -> None:
    made = model(groups=2)
    groups = muon(made, RATE, DECAY).param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in made.parameters())
    part = {id(p): g["parts"] for g in groups for p in g["params"]}
    assert part[id(made.table.weight)] == 0
    assert isinstance(made.backbone, Transformer)
    assert part[id(made.backbone.blocks[0].attention.qkv.weight)] == 1  # queries and keys of different heights
    assert part[id(made.backbone.blocks[0].feed_forward.up.weight)] == 2


@pytest.mark.parametrize("steps", [1, 3])
def test_saved_and_restored_goes_on_with_the_same_bits(steps: int, tmp_path: Path) -> None:
    straight = model()
    optimizer = muon(straight, RATE, DECAY)
    learn(straight, optimizer, steps)
    stopped = copy.deepcopy(straight)
    Checkpoints(tmp_path).save(steps, straight, optimizer, {}, {})
    again = muon(stopped, RATE, DECAY)
    Checkpoints(tmp_path).load(tmp_path / f"step-{steps:08d}", stopped, again)
    learn(straight, optimizer, 2)
    learn(stopped, again, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), stopped.parameters(), strict=True))
