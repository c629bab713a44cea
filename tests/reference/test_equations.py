"""The textbook's equations in plain NumPy, float64, beside the code that is used."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from weft.models.attention import Attention, attend
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.positions import RotaryScaling, rotate, rotation, sinusoids
from weft.models.recurrent import Recurrent, RecurrentConfig
from weft.models.tokens import Tokens
from weft.models.transformer import FeedForward, TransformerConfig, norm
from weft.training.optimizers import adamw

RANDOM = np.random.default_rng(0)


def close(ours: torch.Tensor, reference: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().double().numpy(), reference, rtol=1e-5, atol=1e-5)


def numbers(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.eval()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = False) -> np.ndarray:
    """softmax(Q K^T / sqrt(d_k)) V, one text, one head."""
    scores = q @ k.T / math.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.arange(len(k))[None, :] <= np.arange(len(q))[:, None], scores, -np.inf)
    return softmax(scores) @ v


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal):
    q, k, v = RANDOM.normal(size=(3, 7, 5))
    parts = [torch.tensor(a, dtype=torch.float32)[None, None] for a in (q, k, v)]
    y, weights = attend(*parts, None, causal)
    close(y[0, 0], attention(q, k, v, causal))
    close(weights[0, 0].sum(dim=-1), np.ones(7))
    fused = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=causal)
    close(fused[0, 0], attention(q, k, v, causal))


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_multi_head(groups):
    """concat(head_1, ..., head_h) W^O, head_i = Attention(x W_i^Q, x W_j^K, x W_j^V), j the group of head i."""
    heads, width, k = 4, 24, 6
    config = TransformerConfig(width, 1, heads, groups=groups, biases="all", attention="writing", norm="layer")
    module = randomised(Attention(config))
    x = RANDOM.normal(size=(9, width))
    weight, bias = numbers(module.qkv.weight).T, numbers(module.qkv.bias)
    joined = x @ weight + bias
    q, keys, values = np.split(joined, [heads * k, (heads + groups) * k], axis=1)
    outputs = []
    for i in range(heads):
        j = i // (heads // groups)
        own, shared = slice(i * k, (i + 1) * k), slice(j * k, (j + 1) * k)
        outputs.append(attention(q[:, own], keys[:, shared], values[:, shared], causal=True))
    expected = np.concatenate(outputs, axis=1) @ numbers(module.out.weight).T + numbers(module.out.bias)
    for transparent in (False, True):
        y, _ = module(torch.tensor(x, dtype=torch.float32)[None], None, True, None, transparent=transparent)
        close(y[0], expected)


def test_layer_norm_and_rms_norm():
    x = RANDOM.normal(size=(6, 10)) * 3 + 1
    inputs = torch.tensor(x, dtype=torch.float32)
    layer = randomised(norm(TransformerConfig(10, 1, 1, norm="layer", biases="all", norm_eps=1e-5), 10))
    mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * numbers(layer.weight) + numbers(layer.bias)
    close(layer(inputs), expected)
    rms = randomised(norm(TransformerConfig(10, 1, 1, norm="rms", norm_eps=1e-5), 10))
    close(rms(inputs), x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * numbers(rms.weight))


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


BENDS = {
    "relu": lambda h: np.maximum(0, h),
    "gelu": lambda h: h * (1 + erf(h / math.sqrt(2))) / 2,
    "gelu_tanh": lambda h: h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2,
}


@pytest.mark.parametrize("kind", [*BENDS, "gated_silu"])
def test_feed_forward(kind):
    module = randomised(FeedForward(TransformerConfig(8, 1, 1, feed_forward=kind, biases="all")))
    x = RANDOM.normal(size=(5, 8))
    h = x @ numbers(module.up.weight).T + numbers(module.up.bias)
    if kind == "gated_silu":
        gate, up = np.split(h, 2, axis=1)
        bent = gate * sigmoid(gate) * up
    else:
        bent = BENDS[kind](h)
    expected = bent @ numbers(module.down.weight).T + numbers(module.down.bias)
    close(module(torch.tensor(x, dtype=torch.float32)), expected)


def test_sinusoids():
    width, places = 10, np.array([0, 1, 2, 57, 400])
    expected = np.zeros((len(places), width))
    for i in range(width // 2):
        angle = places / 10_000 ** (2 * i / width)
        expected[:, 2 * i], expected[:, 2 * i + 1] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(sinusoids(torch.tensor(places), width).numpy(), expected, atol=5e-5)


def test_rotation_depends_on_the_distance_alone():
    """Each pair (i, i + K/2) is turned by p base^(-2i/K), so a product depends on the difference of positions."""
    width, base = 8, 100.0
    x = RANDOM.normal(size=width)
    turn = rotation(torch.tensor([[3]]), width, base)
    turned = rotate(torch.tensor(x, dtype=torch.float32).view(1, 1, 1, width), turn)[0, 0, 0]
    expected = np.zeros(width)
    for i in range(width // 2):
        angle = 3 * base ** (-2 * i / width)
        a, b = x[i], x[i + width // 2]
        expected[i] = a * math.cos(angle) - b * math.sin(angle)
        expected[i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
    close(turned, expected)
    q, k = torch.randn(2, 1, 1, 1, width, generator=torch.Generator().manual_seed(0))

    def product(query_at: int, key_at: int) -> torch.Tensor:
        places = [rotation(torch.tensor([[p]]), width, base) for p in (query_at, key_at)]
        return (rotate(q, places[0]) * rotate(k, places[1])).sum()

    torch.testing.assert_close(product(9, 4), product(105, 100), rtol=1e-4, atol=1e-4)
    assert abs(product(9, 4) - product(9, 5)) > 1e-3


def test_scaled_rotation_is_slow_where_it_was_slow():
    rates = torch.tensor([1.0, 0.01, 1e-5])
    assert torch.equal(RotaryScaling("linear", 4.0)(rates), rates / 4)
    scaled = RotaryScaling("llama3", 8.0, 1.0, 4.0, 1024)(rates)
    assert scaled[0] == rates[0] and scaled[2] == rates[2] / 8
    share = (1024 * 0.01 / (2 * math.pi) - 1) / 3
    assert scaled[1] == pytest.approx((1 - share) * 0.01 / 8 + share * 0.01)


def step_rnn(x, h, w, u, b, c):
    return (np.tanh(w @ x + u @ h[0] + b + c),)


def step_gru(x, h, w, u, b, c):
    (wr, wz, wn), (ur, uz, un) = np.split(w, 3), np.split(u, 3)
    (br, bz, bn), (cr, cz, cn) = np.split(b, 3), np.split(c, 3)
    r, z = sigmoid(wr @ x + ur @ h[0] + br + cr), sigmoid(wz @ x + uz @ h[0] + bz + cz)
    n = np.tanh(wn @ x + bn + r * (un @ h[0] + cn))
    return ((1 - z) * n + z * h[0],)


def step_lstm(x, h, w, u, b, c):
    i, f, g, o = np.split(w @ x + u @ h[0] + b + c, 4)
    cell = sigmoid(f) * h[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


STEPS = {"rnn": step_rnn, "gru": step_gru, "lstm": step_lstm}


@pytest.mark.parametrize("cell", STEPS)
def test_recurrent_steps(cell):
    """h_t = f(x_t, h_{t-1}), layer on layer, then y_t = W_hy h_t + b_y."""
    width, layers = 6, 2
    model = randomised(Recurrent(RecurrentConfig(width, layers, cell, "writing")))
    x = RANDOM.normal(size=(8, width))
    zero = torch.zeros(1, 8, dtype=torch.int64)
    states: dict[str, torch.Tensor] = {}
    y = model(Tokens(torch.tensor(x, dtype=torch.float32)[None], None, zero, zero), states=states)
    below = x
    for number, layer in enumerate(model.layers):
        w, u, b, c = (numbers(p) for p in layer.parameters())
        h = tuple(np.zeros(width) for _ in range(2 if cell == "lstm" else 1))
        above = []
        for token in below:
            h = STEPS[cell](token, h, w, u, b, c)
            above.append(h[0])
        below = np.stack(above)
        close(states[f"layer{number:02d}.output"][0], below)
    close(y[0], below @ numbers(model.out.weight).T + numbers(model.out.bias))


def test_next_token_loss():
    """The mean of -log softmax(logits)[next token], over the tokens that have a next one."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(TransformerConfig(16, 1, 2, attention="writing"), 11))
    text = torch.tensor([[1, 4, 9, 2], [5, 5, 3, 0]])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    logits = numbers(model(text, mask))
    parts = [
        -np.log(softmax(logits[row, t])[text[row, t + 1]])
        for row, length in enumerate((4, 3))
        for t in range(length - 1)
    ]
    assert model.loss(text, mask).item() == pytest.approx(np.mean(parts), rel=1e-5)
    prefix = torch.tensor([[True, True, False, False], [True, False, False, False]])
    rewriter = LanguageModel(LanguageConfig(TransformerConfig(16, 1, 2, attention="rewriting"), 11))
    rewriter.load_state_dict(model.state_dict())
    logits = numbers(rewriter(text, mask, prefix_BT=prefix))
    parts = [-np.log(softmax(logits[r, t])[text[r, t + 1]]) for r, t in ((0, 1), (0, 2), (1, 0), (1, 1))]
    assert rewriter.loss(text, mask, prefix_BT=prefix).item() == pytest.approx(np.mean(parts), rel=1e-5)


def test_adamw_steps():
    """m, v: decaying means of g and g^2, corrected for their start at 0; w -= rate (m / (sqrt(v) + eps) + decay w)."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = adamw(model, learning_rate=0.01, weight_decay=0.1)
    (b1, b2), eps = (0.9, 0.99), 1e-8
    w = {n: numbers(p) for n, p in model.named_parameters()}
    m = {n: np.zeros_like(p) for n, p in w.items()}
    v = {n: np.zeros_like(p) for n, p in w.items()}
    for t in range(1, 6):
        x = torch.randn(5, 4)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        for name, parameter in model.named_parameters():
            g = numbers(parameter.grad)
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            decay = 0.1 if name == "weight" else 0.0  # a bias is not decayed
            move = m[name] / (1 - b1**t) / (np.sqrt(v[name] / (1 - b2**t)) + eps)
            w[name] = w[name] - 0.01 * (move + decay * w[name])
        optimizer.step()
        for name, parameter in model.named_parameters():
            close(parameter, w[name])
