"""One Transformer, its promises: fused = transparent, cached = at once, padding and batch change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.writers import greedy, greedy_anew
from torch import nn

from weft.errors import DataError
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.tokens import Tokens
from weft.models.transformer import EncoderDecoder, Transformer, TransformerConfig

TEXTBOOK = TransformerConfig(
    32, 2, 4, norm="layer", norm_at="after", norm_eps=1e-5, positions="sinusoidal", feed_forward="relu", biases="all"
)
OWN = TransformerConfig(32, 2, 4, groups=2)
SHAPES = {
    "own": OWN,
    "writing": replace(OWN, attention="writing"),
    "rewriting": replace(OWN, attention="rewriting"),
    "window": replace(OWN, attention="writing", window=4),
    "textbook": TEXTBOOK,
    "textbook writing": replace(TEXTBOOK, attention="writing"),
    "learned, normed": TransformerConfig(
        32, 2, 4, attention="writing", norm="layer", positions="learned", max_positions=40, embedding_norm=True,
        qk_norm=True, biases="qkv", feed_forward="gelu",
    ),
}  # fmt: skip
WRITERS = {n: c for n, c in SHAPES.items() if c.attention != "reading"}


def build(config: TransformerConfig) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config).eval()


def tokens(states, mask=None, prefix=None):
    b, t, _ = states.shape
    places = torch.arange(t).expand(b, t)
    if mask is not None:
        places = (mask.long().cumsum(1) - 1).clamp(min=0)
    return Tokens(states, mask, places, torch.zeros(b, t, dtype=torch.int64), prefix)


def masks(name: str) -> torch.Tensor:
    lengths = torch.tensor([10, 4, 1])[:, None]
    if name == "right":
        return torch.arange(10) < lengths
    if name == "left":
        return torch.arange(10) >= 10 - lengths
    return torch.ones(3, 10, dtype=torch.bool)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_fused_is_transparent(shape, padding):
    model, mask = build(SHAPES[shape]), masks(padding)
    prefix = torch.arange(10).expand(3, -1) < 3 if shape == "rewriting" else None
    given = tokens(torch.randn(3, 10, 32), mask if padding != "none" else None, prefix)
    states: dict[str, torch.Tensor] = {}
    close(model(given)[mask], model(given, states=states)[mask])
    assert list(states) == ["embedding", *(f"block{i:02d}.{w}" for i in range(2) for w in ("attention", "output"))]
    for i in range(2):
        weights = states[f"block{i:02d}.attention"].transpose(1, 2)[mask]  # of the tokens that ask
        close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
        assert not (weights * ~mask.repeat_interleave(mask.sum(1), 0)[:, None, :]).any()  # padding is not read


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_padding_and_batch_change_nothing(shape, padding):
    model, mask = build(SHAPES[shape]), masks(padding)
    x = torch.randn(3, 10, 32)
    prefix = torch.arange(10).expand(3, -1) < 3 if shape == "rewriting" else None
    together = model(tokens(x, mask, prefix))
    for row in range(3):
        own = None if prefix is None else prefix[row : row + 1, mask[row]]
        alone = model(tokens(x[row : row + 1, mask[row]], None, own))
        close(together[row, mask[row]], alone[0])


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("shape", WRITERS)
def test_cached_is_at_once(shape, padding):
    model, mask = build(SHAPES[shape]), masks(padding)
    given = mask if padding == "left" else None
    x = torch.randn(3, 10, 32)
    prefix = torch.arange(10).expand(3, -1) < 3 if shape == "rewriting" else None
    whole = model(tokens(x, given, prefix))
    cache, parts = model.new_cache(), []
    every = tokens(x, given, prefix)
    for cut in (slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 9), slice(9, 10)):
        part = Tokens(
            x[:, cut], None if given is None else given[:, cut], every.positions_BT[:, cut], every.columns_BT[:, cut],
            None if prefix is None else prefix[:, cut],
        )  # fmt: skip
        parts.append(model(part, cache=cache))
    close(torch.cat(parts, dim=1)[mask], whole[mask])
    assert cache.length == 10


@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_states_alone_are_the_same(shape):
    model, x = build(SHAPES[shape]), tokens(torch.randn(3, 10, 32), masks("right"))
    close(model(x, first=1), model(x)[:, :1])
    close(model(x, first=3, states={}), model(x)[:, :3])


def influence(model: Transformer, prefix=None, length: int = 9) -> torch.Tensor:
    """[T, S] True where the state of token t depends on token s."""
    x = torch.randn(1, length, 32, requires_grad=True)
    y = model(tokens(x, None, prefix))
    rows = [torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)[0][0].abs().sum(-1) > 0 for t in range(length)]
    return torch.stack(rows)


def test_who_sees_whom():
    t, s = torch.arange(9)[:, None], torch.arange(9)[None, :]
    assert influence(build(OWN)).all()
    one = replace(OWN, layers=1)
    assert torch.equal(influence(build(replace(one, attention="writing"))), s <= t)
    assert torch.equal(influence(build(replace(one, attention="writing", window=3))), (s <= t) & (s > t - 3))
    prefix = torch.arange(9)[None, :] < 4
    rewriter = build(replace(one, attention="rewriting"))
    assert torch.equal(influence(rewriter, prefix), (s <= t) | (s < 4))
    assert torch.equal(influence(rewriter), s <= t)


def test_layers_are_those_of_torch():
    """The textbook's block, encoder and decoder, beside nn.TransformerEncoderLayer and DecoderLayer."""
    for place in ("after", "before"):
        config = replace(TEXTBOOK, norm_at=place, positions="none")
        torch.manual_seed(0)
        model = EncoderDecoder(config).eval()
        source, target = torch.randn(2, 7, 32), torch.randn(2, 5, 32)
        mask = torch.arange(7)[None, :] < torch.tensor([[7], [4]])
        kind = {"dim_feedforward": 128, "dropout": 0.0, "batch_first": True, "norm_first": place == "before"}
        memory, y = source, target
        for block in model.encoder.blocks:
            layer = nn.TransformerEncoderLayer(32, 4, **kind)
            give(layer.self_attn, block.attention)
            give_rest(layer, block, ["attention_norm", "feed_forward_norm"])
            memory = layer(memory, src_key_padding_mask=~mask)
        memory = model.encoder.norm(memory)
        close(model.encoder(tokens(source, mask))[mask], memory[mask])
        causal = nn.Transformer.generate_square_subsequent_mask(5)
        for block in model.decoder.blocks:
            layer = nn.TransformerDecoderLayer(32, 4, **kind)
            give(layer.self_attn, block.attention)
            joined = torch.cat([block.cross.q.weight, block.cross.kv.weight])
            layer.multihead_attn.in_proj_weight.data.copy_(joined)
            layer.multihead_attn.out_proj.load_state_dict(block.cross.out.state_dict())
            give_rest(layer, block, ["attention_norm", "cross_norm", "feed_forward_norm"])
            y = layer(y, memory, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=~mask)
        close(model(tokens(source, mask), tokens(target)), model.decoder.norm(y))


def give(theirs: nn.MultiheadAttention, ours) -> None:
    theirs.in_proj_weight.data.copy_(ours.qkv.weight)
    theirs.in_proj_bias.data.copy_(ours.qkv.bias)
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def give_rest(layer: nn.Module, block, norms: list[str]) -> None:
    layer.linear1.load_state_dict(block.feed_forward.up.state_dict())
    layer.linear2.load_state_dict(block.feed_forward.down.state_dict())
    for number, name in enumerate(norms, start=1):
        getattr(layer, f"norm{number}").load_state_dict(getattr(block, name).state_dict())


def test_the_decoder_step_by_step_reads_its_source_once():
    torch.manual_seed(0)
    model = EncoderDecoder(TEXTBOOK).eval()
    source = tokens(torch.randn(2, 7, 32), torch.arange(7)[None, :] < torch.tensor([[7], [4]]))
    x = torch.randn(2, 5, 32)
    states: dict[str, torch.Tensor] = {}
    whole = model(source, tokens(x), states=states)
    close(whole, model(source, tokens(x)))
    assert states["block01.cross"].shape == (2, 4, 5, 7)
    assert not states["block01.cross"][1, :, :, 4:].any()
    cache, read = model.decoder.new_cache(), model.read(source)
    every = tokens(x)
    steps = []
    for t in range(5):
        step = Tokens(x[:, t : t + 1], None, every.positions_BT[:, t : t + 1], every.columns_BT[:, t : t + 1])
        steps.append(model.decoder(step, cache, read))
        read = replace(read, states_BTD=torch.full_like(read.states_BTD, torch.nan))  # never read again
    close(torch.cat(steps, dim=1), whole)


def test_rewriting_writes_the_same_with_and_without_a_cache():
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(replace(OWN, attention="rewriting"), 31, tied=False)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    text = torch.randint(0, 31, (3, 8))
    mask = torch.arange(8)[None, :] < torch.tensor([[8], [3], [5]])
    prefix = mask.clone()
    written = greedy(model, text, 12, mask, prefix)
    assert torch.equal(written, greedy_anew(model, text, 12, mask, prefix))
    assert not torch.equal(written, greedy(model, text, 12, mask))  # the source is read both ways


def test_a_second_source_is_read_as_a_whole_too():
    model, x = build(replace(OWN, attention="rewriting", layers=1)), torch.randn(1, 6, 32)
    places = torch.arange(6)[None]

    def second_turn(changed: torch.Tensor) -> torch.Tensor:
        cache = model.new_cache()
        model(tokens(x[:, :3]), cache=cache)
        source = torch.tensor([[True, True, False]])
        turn = Tokens(changed[:, 3:], None, places[:, 3:], torch.zeros_like(places[:, 3:]), source)
        return model(turn, cache=cache)

    for at, seen in ((4, [True, True, True]), (5, [False, False, True])):
        changed = x.clone()
        changed[:, at] += 1
        moved = (second_turn(x) - second_turn(changed)).abs().amax(dim=-1)[0] > 1e-5
        assert moved.tolist() == seen


def test_an_empty_row_gives_finite_states():
    mask = torch.tensor([[True] * 4, [False] * 4])
    for config in (OWN, SHAPES["writing"]):
        for states in (None, {}):
            assert torch.isfinite(build(config)(tokens(torch.randn(2, 4, 32), mask), states=states)).all()


def test_dropout_is_where_the_papers_put_it():
    """On the embeddings, on the output of each sublayer before it is added, and on the attention map."""
    x = torch.randn(2, 50, 32)

    def halved(after, before):
        kept = after != 0
        torch.testing.assert_close(after[kept], 2 * before[kept], rtol=1e-4, atol=1e-4)
        assert 0.4 < kept.float().mean() < 0.6

    model = build(replace(OWN, dropout=0.5, layers=1)).train()
    states: dict[str, torch.Tensor] = {}
    model(tokens(x), states=states)
    halved(states["embedding"], x)
    block = model.blocks[0]
    for silent, part, inner in (
        (block.feed_forward.down, lambda y: block.attention(y, None, False, None)[0], block.attention_norm),
        (block.attention.out, block.feed_forward, block.feed_forward_norm),
    ):
        kept = silent.weight.detach().clone()
        nn.init.zeros_(silent.weight)
        added = block(x, None, False, None, None, None, None) - x
        halved(torch.where(added.abs() < 1e-6, 0, added), part(inner(x)))
        silent.weight.data.copy_(kept)
    attentive = build(replace(OWN, attention_dropout=0.5))
    assert torch.equal(attentive(tokens(x)), attentive(tokens(x)))
    attentive.train()
    assert not torch.equal(attentive(tokens(x)), attentive(tokens(x)))
    assert not torch.equal(attentive(tokens(x), states={}), attentive(tokens(x), states={}))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_text_longer_than_the_positions_is_refused(positions):
    config = TransformerConfig(16, 1, 2, attention="writing", positions=positions, max_positions=6)
    model = LanguageModel(LanguageConfig(config, 9)).eval()
    text = torch.ones(1, 6, dtype=torch.int64)
    model(text)
    with pytest.raises(DataError, match=r"at most 6 tokens for this model. Got 7. Cut it"):
        model(torch.ones(1, 7, dtype=torch.int64))
    with pytest.raises(DataError, match="at most 6 tokens"):
        greedy(model, text, 5)
    padded = torch.arange(9)[None, :] < 5
    assert model(torch.ones(1, 9, dtype=torch.int64), padded).shape == (1, 9, 9)  # padding takes no position


def test_shapes_that_cannot_be_are_refused():
    for wrong, words in [
        ({"heads": 5}, "multiple of heads"), ({"groups": 3}, "multiple of groups"),
        ({"positions": "learned"}, "max_positions"), ({"head_width": 7}, "even head width"),
        ({"window": 3}, "window looks back"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            replace(OWN, **wrong)


def test_a_source_is_given_where_it_is_read():
    x = tokens(torch.randn(1, 3, 32))
    for config, source in ((OWN, x), (replace(OWN, cross=True), None)):
        with pytest.raises(ValueError, match="must be given a source"):
            build(config)(x, source=source)


def test_the_config_comes_back_from_json():
    from weft.models.positions import RotaryScaling

    config = LanguageConfig(replace(OWN, rotary_scaling=RotaryScaling("linear", 2.0)), 9, end=(1, 2))
    assert LanguageConfig.from_dict(config.to_dict()) == config
