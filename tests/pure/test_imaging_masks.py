"""Masks, regions, fill and compositing by the measured values and by their rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.errors import InvalidRequest
from backend.imaging import composite, masks, regions
from backend.imaging.fill import fill
from backend.imaging.pictures import Mask, Picture, mask_from_bytes, mask_to_bytes
from backend.imaging.regions import Region


def noise(width: int, height: int, channels: int = 3, seed: int = 1) -> Picture:
    return np.random.RandomState(seed).randint(0, 256, (height, width, channels)).astype(np.uint8)


def rectangle(width: int, height: int, region: tuple[int, int, int, int]) -> Mask:
    mask = np.zeros((height, width), dtype=np.float32)
    mask[Region(*region).slices] = 1
    return mask


def test_masks_survive_bytes_exactly() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (mask_to_bytes(mask_from_bytes(values)) == values).all()


def test_mask_from_alpha_is_cut_at_128() -> None:
    picture = np.full((1, 4, 4), 255, dtype=np.uint8)
    picture[0, :, 3] = [0, 128, 129, 255]
    assert masks.binary_mask(picture).tolist() == [[0, 0, 1, 1]]
    assert mask_to_bytes(masks.binary_mask(picture, mask_round=False)).tolist() == [[0, 128, 129, 255]]


def test_mask_from_an_opaque_picture_keeps_greys() -> None:
    picture = np.repeat(np.array([[0, 90, 128, 255]], np.uint8)[:, :, None], 3, axis=2)
    assert mask_to_bytes(masks.binary_mask(picture)).tolist() == [[0, 90, 128, 255]]
    opaque = np.dstack([picture, np.full((1, 4), 255, np.uint8)])
    assert mask_to_bytes(masks.binary_mask(opaque)).tolist() == [[0, 90, 128, 255]]
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 255
    assert mask_to_bytes(masks.binary_mask(red)).tolist() == [[76]]


def test_alpha_mask_of_2022_unites_with_the_drawn_mask() -> None:
    picture = np.full((1, 4, 4), 255, dtype=np.uint8)
    picture[0, :, 3] = [0, 254, 255, 255]
    drawn = np.array([[0, 0, 0.5, 0]], dtype=np.float32)
    assert masks.alpha_mask(picture).tolist() == [[1, 1, 0, 0]]
    assert masks.alpha_mask(picture, drawn).tolist() == [[1, 1, 0.5, 0]]
    assert masks.alpha_mask(picture[:, :, :3]).tolist() == [[0, 0, 0, 0]]


def test_sketch_mask_is_where_any_channel_differs() -> None:
    original = noise(8, 8)
    painted = original.copy()
    painted[2, 3, 1] ^= 1
    assert np.argwhere(masks.sketch_mask(painted, original)).tolist() == [[2, 3]]
    assert mask_to_bytes(masks.sketch_mask(painted, original, transparency=50))[2, 3] == 127
    above = masks.sketch_mask(painted, original, transparency=50)
    assert masks.latent_mask(above, 8, 8).max() == 0
    for transparency in (-1, 101, float("nan")):
        with pytest.raises(InvalidRequest):
            masks.sketch_mask(painted, original, transparency=transparency)
    with pytest.raises(InvalidRequest):
        masks.sketch_mask(painted, noise(8, 9))


def test_sketch_picture_softens_the_paint_and_keeps_the_rest() -> None:
    original = noise(64, 64)
    painted = original.copy()
    painted[24:40, 24:40] = (255, 0, 0)
    out = masks.sketch_picture(painted, original, masks.sketch_mask(painted, original), 2)
    assert (out[:16] == original[:16]).all()
    assert (out[30:34, 30:34] == (255, 0, 0)).all()
    assert (masks.sketch_picture(painted, original, masks.sketch_mask(painted, original), 0) == painted).all()


def test_invert_and_blank() -> None:
    mask = rectangle(8, 8, (0, 0, 4, 8))
    assert (masks.invert(mask) == 1 - mask).all()
    assert masks.is_blank(np.zeros((4, 4), np.float32)) and masks.is_blank(np.full((4, 4), 0.001, np.float32))
    assert not masks.is_blank(mask)


@pytest.mark.parametrize(("sigma", "taps"), [(4, 21), (8, 41), (64, 321), (1, 7), (0.1, 1)])
def test_blur_kernel_sizes(sigma: float, taps: int) -> None:
    assert masks.gaussian_kernel(sigma).size == taps
    assert masks.gaussian_kernel(sigma).sum() == pytest.approx(1)


STEP = [0, 0, 0, 0, 1, 3, 7, 12, 21, 32, 48, 67, 90, 115, 140, 165, 188, 207, 223, 234, 243, 248, 252, 254, 255, 255]


def test_blurred_step_edge_by_value_on_each_axis() -> None:
    mask = rectangle(100, 100, (50, 0, 100, 100))
    across = np.rint(masks.blur(mask, 4) * 255)
    assert across[7, 36:62].tolist() == STEP
    assert np.rint(masks.blur(mask.T.copy(), 4) * 255)[36:62, 7].tolist() == STEP
    assert (masks.blur(mask, 4, 0) == masks.blur(mask, 4)).all()
    assert (masks.blur(mask, 0, 4) == mask).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 12), st.floats(0, 12))
def test_blur_keeps_flat_masks_and_range(width: int, height: int, blur_x: float, blur_y: float) -> None:
    full = np.ones((height, width), np.float32)
    assert (masks.blur(full, blur_x, blur_y) == 1).all()
    mask = (noise(width, height)[:, :, 0] > 127).astype(np.float32)
    out = masks.blur(mask, blur_x, blur_y)
    assert out.shape == mask.shape and out.dtype == np.float32 and out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("blur", [-1.0, float("nan"), 1e6])
def test_wrong_blurs_are_refused(blur: float) -> None:
    with pytest.raises(InvalidRequest):
        masks.blur(np.zeros((4, 4), np.float32), blur)


def test_overlay_mask_doubles_and_clips() -> None:
    mask = mask_from_bytes(np.array([[0, 1, 64, 127, 128, 255]], np.uint8))
    assert mask_to_bytes(masks.overlay_mask(mask)).tolist() == [[0, 2, 128, 254, 255, 255]]


def test_the_whole_fade_lies_outside_the_drawn_edge() -> None:
    mask = rectangle(100, 100, (50, 0, 100, 100))
    overlay = mask_to_bytes(masks.overlay_mask(masks.blur(mask, 4)))[50]
    assert (overlay[50:] == 255).all() and overlay[49] < 255 and overlay[40] == 2


def test_latent_mask_is_bicubic_and_rounded() -> None:
    mask = rectangle(64, 64, (20, 20, 41, 64))
    small = np.array(Image.fromarray(mask_to_bytes(mask)).convert("RGB").resize((8, 8)), dtype=np.float32)[:, :, 0]
    assert np.allclose(masks.latent_mask(mask, 8, 8, mask_round=False), small / 255)
    rounded = masks.latent_mask(mask, 8, 8)
    assert (rounded == (small >= 128)).all() and rounded.dtype == np.float32
    with pytest.raises(InvalidRequest):
        masks.latent_mask(mask, 0, 8)


MEASURED_REGIONS = [
    ((100, 200, 228, 232), 0, (512, 512), (1024, 1024), (100, 152, 228, 280)),
    ((100, 200, 228, 232), 32, (512, 512), (1024, 1024), (68, 120, 260, 312)),
    ((0, 0, 10, 10), 32, (512, 512), (512, 512), (0, 0, 42, 42)),
    ((10, 10, 500, 60), 0, (512, 512), (512, 256), (10, 0, 500, 256)),
    ((10, 10, 14, 11), 0, (64, 64), (64, 64), (10, 9, 14, 13)),
    ((77, 33, 78, 34), 0, (512, 768), (512, 512), (77, 33, 78, 34)),
]


@pytest.mark.parametrize(("box", "padding", "target", "size", "expected"), MEASURED_REGIONS)
def test_only_masked_region_by_value(
    box: tuple[int, int, int, int],
    padding: int,
    target: tuple[int, int],
    size: tuple[int, int],
    expected: tuple[int, int, int, int],
) -> None:
    mask = rectangle(*size, box)
    assert regions.bounding_box(mask) == Region(*box)
    found = regions.masked_region(mask, padding, *target)
    assert found is not None and found.as_tuple() == expected


@given(st.data())
def test_expanded_region_holds_the_box_and_stays_inside(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Region(x1, y1, data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height)))
    target = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    grown = regions.expand_to_aspect(box, *target, width, height)
    assert Region(0, 0, width, height).contains(grown) and grown.contains(box)
    assert grown.width == box.width or grown.height == box.height
    if grown.height < height and grown.width < width:
        off = grown.width * target[1] - grown.height * target[0]
        assert abs(off) < target[0] + target[1]


def test_the_faint_tail_of_a_blur_ends_where_it_rounds_to_zero() -> None:
    mask = masks.blur(rectangle(200, 200, (50, 50, 100, 100)), 4)
    assert regions.bounding_box(mask) == Region(40, 40, 110, 110)


def test_blank_mask_has_no_region() -> None:
    blank = np.zeros((8, 8), np.float32)
    assert regions.bounding_box(blank) is None and regions.masked_region(blank, 32, 64, 64) is None


def test_wrong_regions_are_refused() -> None:
    for wrong in (Region(0, 0, 0, 4), Region(-1, 0, 4, 4), Region(0, 0, 9, 4)):
        with pytest.raises(InvalidRequest):
            regions.crop(noise(8, 8), wrong)
    with pytest.raises(InvalidRequest):
        regions.pad(Region(0, 0, 2, 2), -1, 8, 8)
    with pytest.raises(InvalidRequest):
        regions.expand_to_aspect(Region(0, 0, 2, 2), 0, 8, 8, 8)


def test_fill_by_the_measured_values() -> None:
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[:, :128], picture[:, 128:] = (200, 100, 50), (20, 40, 220)
    out = fill(picture, rectangle(256, 256, (64, 64, 192, 192)))
    seen = {x: tuple(out[128, x].tolist()) for x in (63, 80, 127, 192)}
    assert seen == {63: (200, 100, 50), 80: (165, 88, 82), 127: (110, 70, 134), 192: (20, 40, 220)}


def test_fill_keeps_unmasked_pixels_and_blackens_a_full_mask() -> None:
    picture = noise(48, 32)
    mask = rectangle(48, 32, (10, 5, 30, 20))
    out = fill(picture, mask)
    assert (out[mask == 0] == picture[mask == 0]).all() and (out[mask == 1] != picture[mask == 1]).any()
    assert (fill(picture, np.zeros((32, 48), np.float32)) == picture).all()
    assert (fill(picture, np.ones((32, 48), np.float32)) == 0).all()
    with pytest.raises(InvalidRequest):
        fill(picture, np.zeros((48, 32), np.float32))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(0, 9))
def test_whole_picture_never_leaks_outside_the_overlay(seed: int, blur: int) -> None:
    source, result = noise(64, 48, seed=seed), noise(64, 48, seed=seed + 1)
    overlay = masks.overlay_mask(masks.blur(rectangle(64, 48, (20, 15, 40, 30)), blur))
    out = composite.composite_whole_picture(result, source, overlay)
    assert (out[overlay == 0] == source[overlay == 0]).all()
    assert (out[overlay == 1] == result[overlay == 1]).all()


def test_only_masked_keeps_the_size_of_the_source_and_every_other_byte() -> None:
    source = noise(150, 90)
    overlay = masks.blur(rectangle(150, 90, (60, 30, 90, 50)), 4)
    region = regions.masked_region(overlay, 8, 64, 64)
    assert region is not None
    result = np.full((64, 64, 3), 77, np.uint8)
    out = composite.composite_only_masked(result, source, overlay, region)
    assert out.shape == source.shape
    assert (out[overlay == 0] == source[overlay == 0]).all()
    assert (out[overlay == 1] == 77).all()
    assert (out[overlay > 0.5] != source[overlay > 0.5]).any()


def test_compositing_refuses_what_does_not_fit() -> None:
    overlay = np.ones((8, 8), np.float32)
    with pytest.raises(InvalidRequest):
        composite.composite_whole_picture(noise(8, 9), noise(8, 8), overlay)
    with pytest.raises(InvalidRequest):
        composite.composite_whole_picture(noise(8, 8), noise(8, 8, 4), overlay)
    with pytest.raises(InvalidRequest):
        composite.composite_only_masked(noise(8, 8), noise(8, 8), overlay, Region(4, 4, 12, 8))


def test_masked_composite_carries_the_overlay_as_alpha() -> None:
    overlay = rectangle(8, 8, (0, 0, 4, 8))
    out = composite.masked_composite(noise(8, 8), overlay)
    assert (out[:, :4, 3] == 255).all() and (out[:, 4:, 3] == 0).all() and (out[:, :, :3] == noise(8, 8)).all()
