"""Outpainting's geometry, masks and matched noise by the measured values, and colour correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from backend.errors import InvalidRequest
from backend.imaging import colour, outpaint, outpaint_mk2
from backend.imaging.colour import Levels
from backend.imaging.pictures import Mask, Picture
from backend.imaging.regions import Region


def drawing(width: int, height: int) -> Picture:
    image = Image.new("RGB", (width, height), (60, 120, 200))
    draw = ImageDraw.Draw(image)
    for index in range(0, max(width, height), 12):
        draw.line((index, 0, index // 2, height), fill=(index % 255, 80, 40), width=3)
    draw.ellipse((width // 4, height // 4, width // 2, height // 2), fill=(240, 200, 90))
    grain = np.random.RandomState(1).randint(-12, 12, (height, width, 3))
    grained: Picture = np.clip(np.array(image) + grain, 0, 255).astype(np.uint8)
    return grained


def test_slack_goes_to_the_asked_directions() -> None:
    everywhere = {"left": 128, "right": 128, "up": 128, "down": 128}
    grown = outpaint.outpaint_geometry(512, 512, **everywhere)
    assert (grown.width, grown.height, grown.left, grown.right, grown.up, grown.down) == (768, 768, 128, 128, 128, 128)
    grown = outpaint.outpaint_geometry(500, 500, **everywhere)
    assert (grown.width, grown.height, grown.left, grown.right, grown.up, grown.down) == (768, 768, 134, 134, 134, 134)
    grown = outpaint.outpaint_geometry(500, 500, right=128)
    assert (grown.width, grown.height, grown.left, grown.right, grown.up, grown.down) == (640, 512, 0, 140, 0, 0)
    assert outpaint.outpaint_geometry(500, 500, left=128).left == 140


def test_slack_without_a_direction_is_cropped_and_never_black() -> None:
    picture = np.full((500, 500, 3), 200, dtype=np.uint8)
    geometry = outpaint.outpaint_geometry(500, 500, right=128)
    assert geometry.result == Region(0, 0, 640, 500)
    canvas = outpaint.poor_mans_canvas(picture, geometry, 4)
    assert (canvas.picture[:, :500] == 200).all() and (canvas.picture[:, 500:] == 0).all()
    assert (canvas.mask[:, :492] == 0).all() and (canvas.mask[:, 492:] == 1).all()
    assert canvas.finish(canvas.picture).shape == (500, 640, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.tuples(*[st.sampled_from([0, 8, 64, 100])] * 4))
def test_every_outpaint_holds_its_source(width: int, height: int, pixels: tuple[int, int, int, int]) -> None:
    if not any(pixels):
        return
    left, right, up, down = pixels
    grown = outpaint.outpaint_geometry(width, height, left=left, right=right, up=up, down=down)
    assert grown.width % 64 == 0 and grown.height % 64 == 0
    assert grown.left >= left and grown.right >= right and grown.up >= up and grown.down >= down
    assert (grown.left > 0, grown.right > 0, grown.up > 0, grown.down > 0) == tuple(p > 0 for p in pixels)
    assert grown.result.contains(grown.source)
    picture = drawing(width, height)
    canvas = outpaint.lay_on_canvas(picture, grown)
    assert (canvas[grown.source.slices] == picture).all()


def test_poor_mans_masks_are_inset_by_the_rule() -> None:
    geometry = outpaint.outpaint_geometry(512, 512, left=128, up=128)
    canvas = outpaint.poor_mans_canvas(drawing(512, 512), geometry, 4)
    kept, latent_kept = np.argwhere(canvas.mask == 0), np.argwhere(canvas.latent_mask == 0)
    assert kept.min(axis=0).tolist() == [136, 136] and kept.max(axis=0).tolist() == [639, 639]
    assert latent_kept.min(axis=0).tolist() == [130, 130] and latent_kept.max(axis=0).tolist() == [639, 639]
    assert canvas.mask_blur == 8 and canvas.mask.dtype == np.float32


def test_wrong_outpaints_are_refused() -> None:
    for pixels in ({}, {"left": -8}, {"left": -8, "right": 8}, {"left": 30000}):
        with pytest.raises(InvalidRequest):
            outpaint.outpaint_geometry(64, 64, **pixels)
    with pytest.raises(InvalidRequest):
        outpaint.outpaint_geometry(0, 64, left=8)
    geometry = outpaint.outpaint_geometry(64, 64, left=64)
    for blur in (-1, 65, 40):
        with pytest.raises(InvalidRequest):
            outpaint.poor_mans_canvas(drawing(64, 64), geometry, blur)
    with pytest.raises(InvalidRequest):
        outpaint.poor_mans_canvas(drawing(65, 64), geometry)
    with pytest.raises(InvalidRequest):
        outpaint.poor_mans_canvas(drawing(64, 64), geometry).finish(drawing(64, 64))


def test_mk2_goes_left_right_up_down() -> None:
    order = outpaint_mk2.directions(down=8, up=16, right=24, left=32)
    assert order == (("left", 32), ("right", 24), ("up", 16), ("down", 8))
    assert outpaint_mk2.directions(up=8) == (("up", 8),)
    for pixels in ({}, {"left": -1, "right": 8}):
        with pytest.raises(InvalidRequest):
            outpaint_mk2.directions(**pixels)


@pytest.mark.parametrize("direction", outpaint_mk2.DIRECTIONS)
def test_mk2_expands_one_direction_to_the_exact_size(direction: outpaint_mk2.Direction) -> None:
    picture = drawing(500, 300)
    grown = outpaint_mk2.expand(picture, direction, 100, 256, 256, mask_blur=8)
    horizontal = direction in ("left", "right")
    assert grown.canvas.shape == ((320, 640, 3) if horizontal else (448, 512, 3))
    assert grown.strip.shape == ((320, 256, 3) if horizontal else (256, 512, 3))
    assert grown.strip.shape[:2] == grown.strip_mask.shape == grown.strip_latent_mask.shape
    assert (grown.blur_x, grown.blur_y) == ((32, 0) if horizontal else (0, 32))
    result = grown.finish(grown.strip)
    assert result.shape == ((300, 600, 3) if horizontal else (400, 500, 3))
    inside = {
        "left": result[:, 108:],
        "right": result[:, :492],
        "up": result[108:],
        "down": result[:292],
    }[direction]
    original = {
        "left": picture[:, 8:],
        "right": picture[:, :492],
        "up": picture[8:],
        "down": picture[:292],
    }[direction]
    assert (inside == original).all()
    kept = grown.mask[grown.result.slices] == 0
    latent_kept = grown.latent_mask[grown.result.slices] == 0
    across = 300 if horizontal else 500
    assert kept.sum() == across * ((500 if horizontal else 300) - 8)
    assert latent_kept.sum() == across * ((500 if horizontal else 300) - 16)
    edge = {
        "left": grown.strip_mask[:, 0],
        "right": grown.strip_mask[:, -1],
        "up": grown.strip_mask[0],
        "down": grown.strip_mask[-1],
    }[direction]
    assert (edge == 1).all()


def test_mk2_pastes_the_strip_back() -> None:
    grown = outpaint_mk2.expand(drawing(128, 64), "left", 64, 128, 128, mask_blur=4)
    result = grown.finish(np.full_like(grown.strip, 9))
    assert (result[:, :128] == 9).all() and (result[:, 128:] == drawing(128, 64)[:, 64:]).all()
    with pytest.raises(InvalidRequest):
        grown.finish(drawing(8, 8))


def test_mk2_refuses_what_shows_nothing_of_the_picture() -> None:
    for arguments in (("left", 256, 128, 128), ("north", 8, 128, 128), ("left", 0, 128, 128), ("left", 8, 0, 128)):
        with pytest.raises(InvalidRequest):
            outpaint_mk2.expand(drawing(128, 64), *arguments)
    with pytest.raises(InvalidRequest):
        outpaint_mk2.expand(drawing(16, 64), "left", 64, 128, 128, mask_blur=16)


def noise_case(width: int = 192, height: int = 128) -> tuple[Levels, Mask]:
    levels = drawing(width, height).astype(np.float64) / 255
    mask = np.zeros((height, width), dtype=np.float32)
    mask[:, width - 64 :] = 1
    levels[mask == 1] = 0
    return levels, mask


@pytest.mark.parametrize("falloff", [0.0, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("colour_variation", [0.0, 0.05, 1.0])
def test_matched_noise_has_the_statistics_of_the_known_part(falloff: float, colour_variation: float) -> None:
    levels, mask = noise_case()
    out = outpaint_mk2.matched_noise(levels, mask, falloff, colour_variation)
    assert np.allclose(out[mask == 1].mean(axis=0), levels[mask == 0].mean(axis=0), atol=5e-5)
    assert np.allclose(out[mask == 1].std(axis=0), levels[mask == 0].std(axis=0), atol=5e-5)
    assert (out[mask == 0] == levels[mask == 0]).all()


def test_matched_noise_is_deterministic_and_loses_detail_with_the_falloff() -> None:
    levels, mask = noise_case()
    first, again, other = (outpaint_mk2.matched_noise(levels, mask, 1, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    detail = []
    for falloff in (0, 1, 2):
        out = outpaint_mk2.matched_noise(levels, mask, falloff)
        detail.append(abs(np.diff(out[:, 128:], axis=1)).mean())
    assert detail[0] > detail[1] > detail[2]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_matched_noise_of_a_flat_picture_is_flat_and_a_number(value: float) -> None:
    _, mask = noise_case()
    levels = np.full((128, 192, 3), value)
    levels[mask == 1] = 0
    out = outpaint_mk2.matched_noise(levels, mask)
    assert np.isfinite(out).all() and np.allclose(out, value)


def test_matched_noise_stays_noise_where_the_picture_lacks_frequencies() -> None:
    _, mask = noise_case()
    levels = np.zeros((128, 192, 3))
    levels[:, :128:2] = 0.8
    out = outpaint_mk2.matched_noise(levels, mask)[:, 128:]
    assert np.isfinite(out).all()
    assert abs(out[:64].mean() - out[64:].mean()) < 0.25 * out.std()


def test_matched_noise_refuses_a_full_mask_and_wrong_settings() -> None:
    levels, mask = noise_case()
    with pytest.raises(InvalidRequest):
        outpaint_mk2.matched_noise(levels, np.ones_like(mask))
    for falloff, variation in ((-1.0, 0.05), (float("nan"), 0.05), (1.0, 2.0)):
        with pytest.raises(InvalidRequest):
            outpaint_mk2.matched_noise(levels, mask, falloff, variation)
    assert (outpaint_mk2.matched_noise(levels, np.zeros_like(mask)) == levels).all()


def test_lab_agrees_with_scikit_image() -> None:
    from skimage.color import rgb2lab

    picture = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    lab = rgb2lab(picture)
    expected = np.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], axis=-1)
    assert abs(colour.rgb_to_lab(picture) - expected).max() <= 0.51
    assert abs(colour.lab_to_rgb(expected).astype(int) - picture).max() <= 1


def test_histograms_agree_with_scikit_image() -> None:
    from skimage.exposure import match_histograms

    values, reference = (np.random.RandomState(seed).randint(0, 200, (40, 50)).astype(np.uint8) for seed in (1, 2))
    reference = (reference // 2).astype(np.uint8)
    assert np.allclose(colour.match_histogram(values, reference), match_histograms(values, reference), atol=1)
    assert (colour.match_histogram(values, values) == values).all()


def test_colour_correction_takes_the_target_s_hue_and_keeps_the_light() -> None:
    generated, target = drawing(96, 64), drawing(80, 80)
    target[:, :, 2] //= 3
    out = colour.correct_colours(generated, target)
    light = np.array([0.3, 0.59, 0.11])
    assert abs(out @ light - generated @ light).max() < 1.5
    blue_share = [picture[:, :, 2].mean() / picture.mean() for picture in (generated, target, out)]
    assert abs(blue_share[2] - blue_share[1]) < abs(blue_share[2] - blue_share[0])
    assert abs(colour.correct_colours(generated, generated).astype(int) - generated).max() <= 4


def test_luminosity_blend_by_value() -> None:
    red, grey = np.array([[[200, 0, 0]]], np.uint8), np.full((1, 1, 3), 60, np.uint8)
    assert colour.with_luminosity(red, grey).tolist() == [[[200, 0, 0]]]
    assert colour.with_luminosity(grey, red).tolist() == [[[60, 60, 60]]]
    white = np.full((1, 1, 3), 255, np.uint8)
    assert colour.with_luminosity(red, white).tolist() == [[[255, 255, 255]]]
    assert colour.with_luminosity(red, np.zeros_like(red)).tolist() == [[[0, 0, 0]]]


def test_surroundings_take_each_colour_as_the_picture_shows_it() -> None:
    sky, floor, shade = (150, 185, 210), (150, 120, 90), (140, 108, 80)  # sky and floor are equally red
    surroundings = np.empty((64, 96, 3), np.uint8)
    surroundings[:32], surroundings[32:] = sky, floor
    surroundings[48:, 64:] = shade  # seen beside the picture alone
    picture = np.empty((64, 64, 3), np.uint8)
    picture[:32], picture[32:] = (200, 240, 255), (240, 230, 200)
    border = colour.adopt_colours(surroundings, surroundings[:, :64], picture)[:, 64:].astype(int)
    assert np.abs(border[:32] - picture[0, 0]).max() <= 2
    assert np.abs(border[32:48] - picture[-1, 0]).max() <= 2
    assert np.abs(border[48:] - (230, 218, 190)).max() <= 4  # darker than the floor by as much as before
