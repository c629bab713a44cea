"""What the image codec learns, and what augmentation makes of pictures."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from tests.features.test_codecs import clean_pictures

from weft.data_settings import FeatureSettings
from weft.features.images import ImageCodec
from weft.features.picture_augment import (
    ERASED_AREA,
    augmented,
    coloured,
    drawing,
    erased,
    rand_augmented,
    shifted,
)
from weft.training_settings import AugmentSettings

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (60, 1, 16, 16), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (60, 3, 16, 16), dtype=np.uint8)
ROWS = np.arange(60)


def fitted(arrays, settings=None):
    codec = ImageCodec("photo", settings)
    codec.observe(np.arange(len(arrays)), clean_pictures(arrays))
    codec.finish()
    return codec


def noise(height, width, *channels):
    return RANDOM.integers(0, 256, (height, width, *channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "size"),
    [([noise(9, 9)] * 3, 9), ([noise(10, 20), noise(30, 12), noise(5, 5)], 20), ([noise(3, 2)], 4),
     ([noise(64, 40)] * 2 + [noise(12, 12)], 64)],
)  # fmt: skip
def test_the_size_is_the_middle_of_the_longer_sides(arrays, size):
    assert fitted(arrays).size == size
    assert fitted(arrays, FeatureSettings(type="image", size=24)).size == 24


def test_mean_and_deviation_are_those_of_all_pixels():
    arrays = [noise(8, 8, 3) // 2, noise(8, 8, 3)]
    codec = fitted(arrays)
    both = np.concatenate([a.reshape(-1, 3) for a in arrays]).astype(float)
    assert codec.channels == 3
    np.testing.assert_allclose(codec.mean, both.mean(axis=0))
    np.testing.assert_allclose(codec.deviation, both.std(axis=0))


def test_grey_stays_grey_and_one_colour_makes_all_rgb():
    grey, colour = noise(8, 8), noise(8, 8, 3)
    assert fitted([grey, grey]).channels == 1
    codec = fitted([grey, colour])
    pixels = codec.encode(clean_pictures([grey, colour]))["pixels"]
    np.testing.assert_array_equal(pixels[0], np.broadcast_to(grey, (3, 8, 8)))
    np.testing.assert_array_equal(pixels[1], colour.transpose(2, 0, 1))
    only_grey = fitted([grey]).encode(clean_pictures([colour]))["pixels"][0, 0]
    np.testing.assert_array_equal(only_grey, np.asarray(Image.fromarray(colour).convert("L")))


def test_another_size_is_resized_as_pillow_does():
    picture = noise(20, 31, 3)
    codec = fitted([noise(12, 12, 3)])
    found = codec.encode(clean_pictures([picture]))["pixels"][0].transpose(1, 2, 0)
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(picture).resize((12, 12), Image.BILINEAR)))


ALL = AugmentSettings(crop=0.2, flip=True, color=0.5, erase=0.5, rand_augment=2, strength=7)


@pytest.mark.parametrize("pixels", [GREY, RGB])
def test_a_row_changes_alike_in_every_batch_and_otherwise_in_every_epoch(pixels):
    mean = [100.0] * pixels.shape[1]
    whole = augmented(pixels, mean, ALL, drawing(3, 5, ROWS, 0))
    part = ROWS[::-1][:17]
    np.testing.assert_array_equal(augmented(pixels[part], mean, ALL, drawing(3, 5, part, 0)), whole[part])
    for other in (drawing(3, 6, ROWS, 0), drawing(4, 5, ROWS, 0), drawing(3, 5, ROWS, 1)):
        assert (augmented(pixels, mean, ALL, other) != whole).any(axis=(1, 2, 3)).mean() > 0.9


def test_a_crop_moves_the_picture_and_goes_on_at_its_border():
    moved = shifted(RGB, 0.2, drawing(0, 0, ROWS, 0))
    padded = np.pad(RGB, ((0, 0), (0, 0), (3, 3), (3, 3)), mode="edge")
    places = set()
    for picture, around in zip(moved, padded, strict=True):
        found = [(i, j) for i in range(7) for j in range(7) if (around[:, i : i + 16, j : j + 16] == picture).all()]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 25  # of 49


def test_a_flip_mirrors_half_of_the_pictures():
    settings = AugmentSettings(flip=True, crop=0, erase=0)
    found = augmented(GREY, [0.0], settings, drawing(0, 0, ROWS, 0))
    mirrored = (found == GREY[..., ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (found == GREY).all(axis=(1, 2, 3))).all() and 15 < mirrored.sum() < 45


def test_a_rectangle_of_the_stated_area_is_erased_in_the_stated_share():
    rows = np.arange(4_000)
    ones = np.full((len(rows), 1, 32, 32), 200, np.uint8)
    gone = erased(ones, [7.4], 0.3, drawing(0, 0, rows, 0))[:, 0] == 7
    areas = gone.sum(axis=(1, 2)) / 32**2
    assert (areas > 0).mean() == pytest.approx(0.3, abs=0.03)
    assert areas[areas > 0].min() > 0.005 and areas.max() < ERASED_AREA[1] + 0.03
    assert areas[areas > 0].mean() == pytest.approx(sum(ERASED_AREA) / 2, abs=0.01)
    for one in gone[areas > 0][:50]:  # a rectangle: full in its own rows and columns
        assert one.sum() == one.any(axis=0).sum() * one.any(axis=1).sum()


def test_colours_change_as_pillow_changes_them():
    draws = iter([np.full(60, v) for v in (0.8, 0.1, 0.9)])
    found = coloured(RGB, 0.5, lambda: next(draws))
    for picture, got in zip(RGB, found, strict=True):
        image = Image.fromarray(picture.transpose(1, 2, 0))
        for kind, factor in ((ImageEnhance.Brightness, 1.3), (ImageEnhance.Contrast, 0.6), (ImageEnhance.Color, 1.4)):
            image = kind(image).enhance(factor)
        assert np.abs(np.asarray(image).transpose(2, 0, 1).astype(int) - got).max() <= 3  # Pillow rounds each step


def test_rand_augment_changes_most_pictures_and_more_by_its_strength():
    smooth = np.asarray(Image.fromarray(RGB[0].transpose(1, 2, 0)).resize((32, 32))).transpose(2, 0, 1)
    rows = np.arange(400)
    many = np.repeat(smooth[None], 400, axis=0)
    weak, strong = (rand_augmented(many, [90.0] * 3, s, drawing(0, 0, rows, 0)) for s in (0.2, 0.9))
    assert (strong != smooth).any(axis=(1, 2, 3)).mean() > 0.75
    gap = [np.abs(x.astype(float) - smooth).mean() for x in (weak, strong)]
    assert gap[0] < 0.7 * gap[1]
    assert len(np.unique(strong.reshape(400, -1), axis=0)) > 15  # fourteen changes, most of them both ways
