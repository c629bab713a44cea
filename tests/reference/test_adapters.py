"""LoRA: the equation, ``peft``, merging."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from torch import nn

from weft.errors import CheckpointError, UsageError
from weft.models.checkpoints import save_hf
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.training.adapters import LoraLinear, attach, merge

TEXT = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(0))


def model(seed: int = 0, **more) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(LanguageConfig(TransformerConfig(32, 2, 4, groups=2, attention="writing", **more), 40)).eval()


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def taught(rank: int = 8) -> LanguageModel:
    """A model whose adapter has been trained a little."""
    learner = model()
    attach(learner, rank)
    optimizer = torch.optim.AdamW(trained(learner), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        learner.loss(TEXT).backward()
        optimizer.step()
    return learner


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_equation():
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(6, 5), 2)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(4, 6)
    whole = layer.weight + 2 * layer.lora_b @ layer.lora_a
    close(layer(x), x @ whole.T + layer.bias)
    close(layer(x, slice(1, 3)), (x @ whole.T + layer.bias)[:, 1:3])


def test_equals_peft():
    ours, base = taught(rank=4), model()
    names = ["qkv", "out", "up", "down"]
    theirs = get_peft_model(base, PeftConfig(r=4, lora_alpha=8, target_modules=names, lora_dropout=0.0)).eval()
    state = theirs.state_dict()
    for name, parameter in ours.named_parameters():
        if "lora" in name:
            stem, leaf = name.rsplit(".lora_", 1)
            state[f"base_model.model.{stem}.lora_{leaf.upper()}.default.weight"].copy_(parameter)
    assert sum(p.numel() for p in theirs.parameters() if p.requires_grad) == sum(p.numel() for p in trained(ours))
    close(ours(TEXT), theirs(TEXT))
    ours.zero_grad()
    ours.loss(TEXT).backward()
    theirs.base_model.model.loss(TEXT).backward()
    grads = {n: p.grad for n, p in theirs.named_parameters() if p.requires_grad}
    for name, parameter in ours.named_parameters():
        if "lora" in name:
            stem, leaf = name.rsplit(".lora_", 1)
            close(parameter.grad, grads[f"base_model.model.{stem}.lora_{leaf.upper()}.default.weight"])


def test_an_untrained_adapter_changes_nothing_and_only_it_is_trained():
    learner, before = model(), model()
    names = attach(learner, 2)
    parts = ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down")
    assert names == [f"backbone.blocks.{i}.{part}" for i in range(2) for part in parts]
    assert torch.equal(learner(TEXT), before(TEXT))
    assert sum(p.numel() for p in trained(learner)) == 2 * 2 * (32 + 64 + 32 + 32 + 32 + 2 * 88 + 88 + 32)
    learner = taught()
    assert not torch.allclose(learner(TEXT), before(TEXT), atol=1e-3)
    frozen = before.state_dict()
    assert all(torch.equal(p, frozen[n]) for n, p in learner.state_dict().items() if "lora" not in n)


def test_merge():
    learner = taught()
    answer, weight = learner(TEXT), learner.backbone.blocks[0].attention.qkv.weight.clone()
    merge(learner)
    assert not torch.equal(learner.backbone.blocks[0].attention.qkv.weight, weight)
    assert [n for n, _ in learner.named_parameters()] == [n for n, _ in model().named_parameters()]
    assert [type(m) for m in learner.modules()] == [type(m) for m in model().modules()]
    close(learner(TEXT), answer)
    assert all(p.requires_grad for p in learner.parameters())


def test_reading_with_few_states_uses_the_adapter_too():
    torch.manual_seed(0)
    from weft.models.tokens import Tokens
    from weft.models.transformer import Transformer

    reader = Transformer(TransformerConfig(32, 2, 4)).eval()
    attach(reader, 8)
    for parameter in trained(reader):
        nn.init.normal_(parameter, std=0.2)
    zero = torch.zeros(2, 6, dtype=torch.int64)
    given = Tokens(torch.randn(2, 6, 32), None, zero, zero)
    close(reader(given, first=1), reader(given)[:, :1])


def test_a_merged_model_is_exported_and_one_with_an_adapter_is_not(tmp_path):
    learner = taught()
    with pytest.raises(CheckpointError, match=r"lora_a.*Merge or remove adapters first"):
        save_hf(learner, tmp_path / "out")
    merge(learner)
    assert save_hf(learner, tmp_path / "out") == "llama"


def test_wrong_use_is_refused():
    for wrong in (taught(), nn.Linear(2, 2)):
        with pytest.raises(UsageError, match="without one"):
            attach(wrong, 8)
