"""LoRA: the equation, ``peft``, merging, and files that hold the adapter alone."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from torch import nn

from weft.errors import CheckpointError, UsageError
from weft.models.checkpoints import save_hf
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.training.adapters import (
    LoraConfig,
    LoraLinear,
    attach,
    detach,
    load_adapter,
    merge,
    save_adapter,
    trained,
    unmerge,
)

TEXT = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(0))


def model(seed: int = 0, **more) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(LanguageConfig(TransformerConfig(32, 2, 4, groups=2, attention="writing", **more), 40)).eval()


def taught(seed: int = 0, config: LoraConfig | None = None) -> LanguageModel:
    """A model whose adapter has been trained a little."""
    learner = model(seed)
    attach(learner, config)
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
    layer = LoraLinear(nn.Linear(6, 5), LoraConfig(rank=2, scale=3.0))
    nn.init.normal_(layer.lora_b)
    x = torch.randn(4, 6)
    whole = layer.weight + 3.0 / 2 * layer.lora_b @ layer.lora_a
    close(layer(x), x @ whole.T + layer.bias)
    close(layer(x, slice(1, 3)), (x @ whole.T + layer.bias)[:, 1:3])


def test_dropout_is_on_what_the_adapter_reads():
    learner = taught(config=LoraConfig(dropout=0.5))
    assert torch.equal(learner(TEXT), learner(TEXT))
    learner.train()
    assert not torch.equal(learner(TEXT), learner(TEXT))


def test_equals_peft():
    ours, base = taught(config=LoraConfig(rank=4, scale=6.0)), model()
    names = ["qkv", "out", "up", "down"]
    theirs = get_peft_model(base, PeftConfig(r=4, lora_alpha=6, target_modules=names, lora_dropout=0.0)).eval()
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
    names = attach(learner, LoraConfig(rank=2, targets=("qkv", "feed_forward.down")))
    assert names == [f"backbone.blocks.{i}.{w}" for i in range(2) for w in ("attention.qkv", "feed_forward.down")]
    assert torch.equal(learner(TEXT), before(TEXT))
    assert sum(p.numel() for p in trained(learner)) == 2 * 2 * (32 + 64) + 2 * 2 * (88 + 32)
    learner = taught()
    assert not torch.allclose(learner(TEXT), before(TEXT), atol=1e-3)
    frozen = before.state_dict()
    assert all(torch.equal(p, frozen[n]) for n, p in learner.state_dict().items() if "lora" not in n)


def test_merge_and_unmerge():
    learner = taught()
    answer, weight = learner(TEXT), learner.backbone.blocks[0].attention.qkv.weight.clone()
    merge(learner)
    merge(learner)
    assert not torch.equal(learner.backbone.blocks[0].attention.qkv.weight, weight)
    close(learner(TEXT), answer)
    unmerge(learner)
    unmerge(learner)
    close(learner.backbone.blocks[0].attention.qkv.weight, weight)
    close(learner(TEXT), answer)
    merge(learner)
    detach(learner)
    assert [n for n, _ in learner.named_parameters()] == [n for n, _ in model().named_parameters()]
    assert [type(m) for m in learner.modules()] == [type(m) for m in model().modules()]
    close(learner(TEXT), answer)
    assert all(p.requires_grad for p in learner.parameters())


def test_reading_with_few_states_uses_the_adapter_too():
    torch.manual_seed(0)
    from weft.models.tokens import Tokens
    from weft.models.transformer import Transformer

    reader = Transformer(TransformerConfig(32, 2, 4)).eval()
    attach(reader)
    for parameter in trained(reader):
        nn.init.normal_(parameter, std=0.2)
    zero = torch.zeros(2, 6, dtype=torch.int64)
    given = Tokens(torch.randn(2, 6, 32), None, zero, zero)
    close(reader(given, first=1), reader(given)[:, :1])


def test_an_adapter_is_saved_alone(tmp_path):
    learner = taught()
    learner.backbone.norm.weight.requires_grad_(True)  # trained in full beside the adapter
    with torch.no_grad():
        learner.backbone.norm.weight.mul_(1.5)
    answer = learner(TEXT)
    save_adapter(learner, tmp_path / "adapter")
    size = sum(f.stat().st_size for f in (tmp_path / "adapter").iterdir())
    assert size < 0.75 * sum(4 * p.numel() for p in model().parameters())
    again = model()
    assert load_adapter(again, tmp_path / "adapter") == LoraConfig()
    assert torch.equal(again(TEXT), answer)
    assert {id(p) for p in trained(again)} == {
        id(p) for n, p in again.named_parameters() if "lora" in n or n == "backbone.norm.weight"
    }
    merge(again)
    unmerge(again)
    save_adapter(again, tmp_path / "twice")
    load_adapter(model(), tmp_path / "twice")


def test_a_merged_model_is_exported_and_one_with_an_adapter_is_not(tmp_path):
    learner = taught()
    with pytest.raises(CheckpointError, match=r"lora_a.*Merge or remove adapters first"):
        save_hf(learner, tmp_path / "out")
    merge(learner)
    detach(learner)
    assert save_hf(learner, tmp_path / "out") == "llama"


def test_wrong_use_and_wrong_files_are_refused(tmp_path):
    learner = taught()
    with pytest.raises(UsageError, match="detach"):
        attach(learner)
    with pytest.raises(UsageError, match="named 'nothing'"):
        attach(model(), LoraConfig(targets=("nothing",)))
    with pytest.raises(UsageError, match="at least 1"):
        LoraConfig(rank=0)
    with pytest.raises(UsageError, match="none"):
        save_adapter(model(), tmp_path / "no")
    folder = tmp_path / "adapter"
    save_adapter(learner, folder)
    for other in (model(seed=1), model(qk_norm=True), LanguageModel(replaced_width())):
        before = [n for n, _ in other.named_parameters()]
        with pytest.raises(CheckpointError, match="the model it was trained on"):
            load_adapter(other, folder)
        assert [n for n, _ in other.named_parameters()] == before
    for file in ("adapter.json", "adapter.safetensors"):
        good = (folder / file).read_bytes()
        (folder / file).write_bytes(good[:-20])
        with pytest.raises(CheckpointError, match=f"{file} has changed"):
            load_adapter(model(), folder)
        (folder / file).write_bytes(good)
    assert json.loads((folder / "adapter.json").read_text())["rank"] == 8
    load_adapter(model(), folder)


def replaced_width() -> LanguageConfig:
    config = copy.copy(model().config)
    return LanguageConfig(TransformerConfig(16, 2, 4, groups=2, attention="writing"), config.vocabulary)
