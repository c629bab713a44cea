"""Rows read without their padding are read as each by itself."""

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from weft.models import unpadded
from weft.models.packed import PackedLinear, pack_layers
from weft.models.pretrained import load_pretrained
from weft.models.unpadded import Unpadded

LENGTHS = (40, 25, 1, 0, 33, 7)


def mask_of(lengths: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_attention_of_a_list_is_that_of_each_row_alone():
    torch.manual_seed(0)
    mask = mask_of(LENGTHS)
    mask[0, 3:9] = False  # tokens need not lie side by side: a second text may begin after the end of the first
    qkv = torch.randn(*mask.shape, 3, 4, 8)
    rows = Unpadded(mask)
    listed = rows.list(qkv.flatten(2))
    assert listed.shape[1] % unpadded.TOKENS == 0 and listed.shape[1] < mask.numel()
    y = rows.padded(rows.attend(listed, 8))
    for row, here in enumerate(mask):
        q, k, v = qkv[row, here].permute(1, 2, 0, 3)
        torch.testing.assert_close(y[row, here], F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
    assert not y[~mask].any()


def test_many_lengths_make_few_sizes_of_products():
    sizes = set()
    for length in range(1, 129):
        rows = Unpadded(mask_of((length,) * (2_000 // length)))
        sizes.add((rows.rows, rows.places, len(rows.held_N)))
    assert len({n for _, _, n in sizes}) <= 8 and len({s[:2] for s in sizes}) < 64


def test_a_bert_read_in_bfloat16_is_that_of_transformers_but_for_rounding(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=256, num_hidden_layers=3, num_attention_heads=8, intermediate_size=512,
        max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    theirs = BertModel(config, add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path).model.eval()
    mask, ids = mask_of((40, 25, 2, 33, 7)), torch.randint(99, (5, 40))
    with torch.no_grad():
        truth = theirs(ids, mask.long()).last_hidden_state[mask]
        assert pack_layers(ours.backbone, torch.bfloat16)
        assert sum(isinstance(m, PackedLinear) for m in ours.modules()) == 12
        with torch.autocast("cpu", torch.bfloat16):
            states = ours.backbone(ours.tokens(ids, mask))
    found = states[mask].float()
    assert not states[~mask].any()  # padding was not read
    assert F.cosine_similarity(found, truth).min() > 0.9995
    assert (found - truth).abs().mean() < 0.01
