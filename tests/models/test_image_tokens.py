"""Pictures as tokens: where they stand, what a missing one is, and a ViT of ``transformers`` as the reader."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.features.test_codecs import clean_pictures
from tests.reference.originals import SEERS, make
from tests.tables import pictured

import weft
from weft.config import from_mapping
from weft.data.plan import look
from weft.data.table import Table
from weft.errors import CheckpointError, SettingsError
from weft.exchange import export_hf, import_checkpoint
from weft.features.batching import collate
from weft.features.images import ImageCodec
from weft.features.targets import ClassTarget
from weft.models.images import ImageEmbedding, Stem
from weft.models.pretrained import load_row_source
from weft.models.row import RowConfig, RowModel
from weft.tasks.sources import open_source
from weft.training.fit import start

RANDOM = np.random.default_rng(0)


def codec_of(arrays, name="photo"):
    codec = ImageCodec(name)
    codec.observe(np.arange(len(arrays)), clean_pictures(arrays))
    codec.finish()
    return codec


def columns_of(codec, arrays):
    return collate({codec.name: codec.encode(clean_pictures(arrays))}, len(arrays)).columns


@pytest.mark.parametrize(("side", "tokens"), [(4, 16), (8, 64), (9, 25), (28, 49), (32, 64), (64, 64), (100, 49)])
def test_a_picture_has_at_most_eight_tokens_a_side(side, tokens):
    for width in (8, 16, 40):
        stem = Stem(1, side, width)
        assert stem.tokens(side) == tokens
        assert stem(torch.zeros(1, 1, side, side)).flatten(2).shape[1:] == (width, tokens)


def test_each_token_sees_its_surroundings_and_not_the_whole():
    torch.manual_seed(0)
    stem = Stem(1, 16, 16)
    for parameter in stem.parameters():  # the residual block starts as nothing
        torch.nn.init.normal_(parameter, std=0.3)
    for module in stem.modules():  # whose mean is over the whole picture
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    stem(x)[0, :, 4, 4].sum().backward()
    seen = (x.grad[0, 0] != 0).nonzero()
    low, high = seen.min(0).values, seen.max(0).values
    assert (high - low >= 6).all() and (low > 0).all() and (high < 15).all()  # its own patch has two pixels a side


def test_a_missing_picture_is_one_token_of_its_own_whatever_its_pixels():
    codecs = [codec_of([RANDOM.integers(0, 256, (8, 8), dtype=np.uint8)] * 3, name) for name in ("a", "b")]
    torch.manual_seed(0)
    embedding = ImageEmbedding(codecs, 16)
    shown = [RANDOM.integers(0, 256, (8, 8), dtype=np.uint8) for _ in range(2)]
    columns = columns_of(codecs[0], [shown[0], None]) | columns_of(codecs[1], [None, shown[1]])
    states, mask = embedding(columns)
    assert mask.tolist() == [[True] * 64 + [True] + [False] * 63, [True] + [False] * 63 + [True] * 64]
    torch.testing.assert_close(states[0, 64], embedding.missing)
    torch.testing.assert_close(states[1, 0], embedding.missing)
    assert embedding(columns_of(codecs[0], shown) | columns_of(codecs[1], shown))[1] is None


# ---- a ViT as the reader


@pytest.fixture(params=["vit", "vit-grey"])
def folder(request, tmp_path):
    original = make(SEERS[request.param])
    original.save_pretrained(tmp_path / "vit")
    channels = original.config.num_channels
    said = {
        "image_mean": [0.4, 0.5, 0.6][:channels],
        "image_std": [0.2, 0.3, 0.25][:channels],
        "rescale_factor": 1 / 255,
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(said))
    return original, tmp_path / "vit", said


def test_a_vit_reads_a_picture_as_transformers_does(folder):
    original, path, said = folder
    source = load_row_source(path, {"image"})
    size = original.config.image_size
    shown = [RANDOM.integers(0, 256, (size, size, len(said["image_mean"])), dtype=np.uint8) for _ in range(3)]
    codec = ImageCodec("photo")
    codec.fix(source.config.image, source.mean, source.deviation)
    target = ClassTarget("y", ["a", "b"])
    target.counts = [1, 1]
    model = RowModel([codec], target, RowConfig(source.backbone, 16, 0.0, linear=(), pretrained=source.config)).eval()
    start(model, source.model, lora=None)
    pixels = torch.tensor(np.stack(shown)).permute(0, 3, 1, 2) / 255
    mean, deviation = (torch.tensor(said[key])[:, None, None] for key in ("image_mean", "image_std"))
    with torch.no_grad():
        tokens = model.embedding(columns_of(codec, shown))
        states, read = model.backbone(tokens), model.read(tokens)
        expected = original.base_model((pixels - mean) / deviation).last_hidden_state
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read, expected.mean(dim=1), atol=1e-5, rtol=1e-5)


def test_a_run_from_a_vit_answers_alone_and_goes_back(folder, tmp_path):
    from transformers import AutoModel

    original, path, said = folder
    table = pictured(120).select(["photo", "price", "side"])
    settings = {"training": {"epochs": 2, "batch_rows": 32}, "results": {"baselines": False}}
    import_checkpoint(str(path), tmp_path / "imported")
    run = weft.train(
        table, "side", tmp_path / "run", quiet=True, model={"from": str(tmp_path / "imported")}, **settings
    )
    assert "from a checkpoint" in run.figures["model"]["shape"]
    codec = next(c for c in run.columns.codecs if c.type == "image")
    assert codec.size == original.config.image_size
    np.testing.assert_allclose(codec.mean, 255 * np.array(said["image_mean"]))
    assert weft.load(run.path).predict(table).equals(run.predict(table))
    told = export_hf(run.path, tmp_path / "hf")
    assert told["family"] == "vit"
    theirs = AutoModel.from_pretrained(tmp_path / "hf", add_pooling_layer=False).eval()
    inside = run.model.each()[0]
    x = torch.randn(2, original.config.num_channels, original.config.image_size, original.config.image_size)
    with torch.no_grad():
        patches = theirs(x).last_hidden_state
        cut = inside.embedding.by_type["image"].cut
        torch.testing.assert_close(theirs.embeddings.patch_embeddings(x), cut(x).flatten(2).transpose(1, 2))
    assert patches.shape[1] == 1 + inside.embedding.by_type["image"].widths[0]
    back = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    np.testing.assert_allclose(back["image_mean"], said["image_mean"])


def test_a_vit_that_cannot_read_the_table_is_refused(folder, tmp_path):
    _, path, _ = folder

    def opened(table, **settings):
        told = from_mapping({"target": "side", "model": {"from": str(path)}, **settings})
        return open_source(told, look(told, Table.of(table)))

    table = pictured(60)
    with pytest.raises(SettingsError, match=r"one column of pictures beside numbers.*'review' too"):
        opened(table)
    two = table.select(["photo", "side"]).append_column("other", table["photo"])
    with pytest.raises(SettingsError, match="Got 'other' too"):
        opened(two)
    with pytest.raises(SettingsError, match="pictures of"):
        opened(table.select(["photo", "side"]), features={"photo": {"type": "image", "size": 12}})
    with pytest.raises(CheckpointError, match="must hold a text model"):
        opened(table.drop_columns("photo"))
    with pytest.raises(SettingsError, match="The table has none"):
        opened(table.select(["price", "side"]))
    (path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5]}')
    with pytest.raises(CheckpointError, match="image_mean and image_std must have"):
        opened(table.select(["photo", "side"]))


@pytest.mark.parametrize("backbone", ["transformer", "rnn"])
def test_an_absent_column_of_pictures_is_all_missing(tmp_path, backbone):
    table = pictured(60).select(["photo", "price", "side"])
    model = {"width": 16, "layers": 1, "backbone": backbone}
    run = weft.train(table, "side", tmp_path / "run", quiet=True, model=model, training={"epochs": 1},
                     results={"baselines": False})  # fmt: skip
    absent = run.predict(table.select(["price"]), allow_missing=True)
    none = run.predict(table.set_column(0, "photo", pa.nulls(60, table["photo"].type)))
    assert absent.equals(none)
