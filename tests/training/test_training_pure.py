"""The arithmetic of the training recipe: bridges, captions, palettes, styles and measures, without any model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")

from tests.training.drawn import facts, scene  # noqa: E402
from training import bridge, captions, checkpoints, measures, mixture, stylist  # noqa: E402
from training.buffers import SIZE, load_scene, save_scene  # noqa: E402
from training.guide import LIFT, LUMINANCE, make_guide, render, shown_light, usual_light  # noqa: E402
from training.regions import Region, choose_palette, recoloured  # noqa: E402
from training.wardrobe import choose_outfit, cloth_regions  # noqa: E402


def latents(count: int, shape: tuple[int, ...] = (1, 4, 8, 8)) -> list[Any]:
    torch.manual_seed(0)
    return [torch.randn(shape) for _ in range(count)]


def levels_of(level: int, progress: float, blind: bool = False) -> bridge.Levels:
    return bridge.Levels(
        torch.tensor([level]), torch.tensor([progress]), torch.tensor([not blind]), torch.tensor([blind])
    )


def test_diffusers_computes_the_same_noise_from_the_exported_schedule() -> None:
    diffusers = pytest.importorskip("diffusers")
    made = diffusers.EulerDiscreteScheduler(trained_betas=bridge.trained_betas(), prediction_type="v_prediction")
    sigmas = ((1 - made.alphas_cumprod) / made.alphas_cumprod).sqrt()
    assert torch.allclose(sigmas[100:], bridge.SIGMA[100:], rtol=0.02)
    assert torch.allclose(sigmas, bridge.SIGMA, atol=3e-4)  # in single precision


def test_a_bridge_at_its_source_is_plain_image_to_image_noise() -> None:
    target, source, noise = latents(3)
    sample = bridge.noised(bridge.along(source, target, torch.tensor([0.0])), levels_of(460, 0.0), noise)
    a, s = bridge.SIGNAL[460], bridge.NOISE[460]
    assert torch.allclose(sample, a * source + s * noise, atol=1e-4)


def test_the_aim_leads_to_the_end_and_weighs_errors_of_clean_latents() -> None:
    sample, end = latents(2, (2, 4, 8, 8))
    level, never = torch.tensor([460, 700]), torch.zeros(2, dtype=torch.bool)
    levels = bridge.Levels(level, torch.tensor([0.5, 1.0]), ~never, never)
    velocity, weight = bridge.aim(sample, end, levels)
    assert torch.allclose(bridge.clean(sample, velocity, level), end, atol=1e-2)
    a, s = bridge.SIGNAL[level].view(-1, 1, 1, 1), bridge.NOISE[level].view(-1, 1, 1, 1)
    error = 0.3  # of the clean latent; in velocity it is that over the noise's share
    lost = (weight * (error / s).square()).flatten().tolist()
    ratio = (a / s).square().flatten().tolist()
    assert lost == pytest.approx([0.09 * min(1 + x, bridge.WEIGHT_CAP) for x in ratio], rel=1e-4)
    assert float(bridge.aim(sample, end, bridge.Levels(level + 250, levels.progress, ~never, never))[1][1]) == (
        pytest.approx(bridge.WEIGHT_FLOOR * float(bridge.NOISE[950]) ** 2, rel=1e-4)
    )
    levels.progress = torch.tensor([0.5, 3.0])
    assert torch.allclose(bridge.aim(sample, end, levels)[1], weight / torch.tensor([1.0, 9.0]).view(2, 1, 1, 1))


def test_a_blind_sample_holds_nothing_of_the_picture() -> None:
    target, noise = latents(2)
    sample = bridge.noised(target, levels_of(990, 1.0, blind=True), noise)
    assert torch.allclose(sample, bridge.NOISE[990] * noise)


def test_progress_begins_at_the_source_and_grows_as_the_level_falls() -> None:
    levels, recoloured = bridge.draw_levels(np.random.default_rng(0), 4000, mixture.FULL)
    assert (levels.progress[~levels.bridged] == 1).all()
    come = levels.progress[levels.bridged]
    assert float((come == 0).float().mean()) == pytest.approx(mixture.FULL.first, abs=0.05)
    assert 0 < float((come > 1).float().mean()) < mixture.FULL.overshot
    assert float(come.max()) <= 1 + bridge.OVERSHOOT
    under = levels.bridged & (levels.progress > 0) & (levels.progress < 1)
    low, high = under & (levels.level < 150), under & (levels.level > 500)
    assert levels.progress[low].mean() > levels.progress[high].mean() + 0.1
    began = torch.from_numpy(recoloured) & (levels.progress == 0)
    assert float((levels.level[began] > 830).float().mean()) > 0.2, "as high as garments are inpainted"


def test_samples_without_a_source_are_mostly_where_a_picture_is_decided() -> None:
    alone = replace(mixture.FULL, alone=0.6)
    levels, recoloured = bridge.draw_levels(np.random.default_rng(0), 4000, alone)
    assert float((~levels.bridged).float().mean()) == pytest.approx(0.6, abs=0.03)
    assert not recoloured[~levels.bridged.numpy()].any()
    theirs = levels.level[~levels.bridged]
    assert int(theirs.min()) >= alone.lowest_alone and int(theirs.max()) == bridge.LEVELS - 1
    assert 0.55 < float((theirs > 880).float().mean()) < 0.7
    assert not (levels.blind & levels.bridged).any() and float(levels.level[levels.blind].min()) >= bridge.BLIND


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.8, 1.0, 1.7])
def test_a_bridge_whose_colours_lag_comes_from_between_the_colours_and_leads_to_the_target(progress: float) -> None:
    source, as_before, target = latents(3)
    share = np.random.default_rng(0).random() if 0 < progress < bridge.LAGGING else 0.0
    lagging = source + bridge.lag(np.random.default_rng(0), progress) * (as_before - target)
    here = bridge.along(lagging, target, torch.tensor([progress]))
    styled = target + share * (as_before - target)
    torch.testing.assert_close(here, source + progress * (styled - source), check_dtype=False, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bridge.along(lagging, target, torch.ones(1)), target, check_dtype=False)


def come_to(denoise: float, guidance: float, steps: int = 20) -> float:
    """Where Euler's sampler ends if the model predicts without fault."""
    levels = np.arange(steps - 1, -1, -1) * (bridge.LEVELS // steps) + 1
    levels = levels[steps - int(steps * denoise) :]
    sigmas = [*bridge.SIGMA[levels].tolist(), 0.0]
    progress = torch.zeros(1)
    for i, level in enumerate(levels):
        said, silent = (bridge.ahead(torch.tensor([level]), progress, torch.tensor([told])) for told in (True, False))
        end = silent + guidance * (said - silent)
        progress = progress + (1 - sigmas[i + 1] / sigmas[i]) * (end - progress)
    return float(progress)


@pytest.mark.parametrize("guidance", [1, 3, 7, 12])
def test_at_any_cfg_scale_usual_denoising_ends_in_the_style_and_not_beyond(guidance: float) -> None:
    assert 0.99 < come_to(0.55, guidance) <= 1.001
    assert 0.99 < come_to(0.75, guidance, steps=8) <= 1.001


def test_the_style_comes_with_denoising_and_without_a_prompt_not_at_all() -> None:
    come = [come_to(denoise, 1) for denoise in (0.1, 0.2, 0.25, 0.3, 0.4)]
    assert come[1] < 0.1
    assert 0.5 < come[3] < 0.75
    assert (np.diff(come) > 0.03).all()
    assert come_to(0.75, 0) == 0


def test_caption_always_names_what_it_must() -> None:
    known = facts()
    palette = choose_palette(np.random.default_rng(1), "tan", True)
    for seed in range(60):
        said = captions.caption(known, palette.names, "ink", np.random.default_rng(seed), ("top", "hair"))
        assert palette.names["top"] in said
        assert palette.names["hair"] in said


def test_caption_of_a_portrait_does_not_name_trousers() -> None:
    palette = choose_palette(np.random.default_rng(1), "tan", True)
    assert "trousers" not in captions.full_caption(facts(framing="portrait"), palette.names, "anime")


def test_recolouring_changes_only_the_named_parts() -> None:
    palette = choose_palette(np.random.default_rng(3), "tan", False)
    other, changed = recoloured(palette, np.random.default_rng(4), ("top", "bottom"))
    differing = {Region(i).name.lower() for i in np.flatnonzero((palette.colours != other.colours).any(1))}
    assert differing == set(changed)
    assert all(other.names[part] != palette.names[part] for part in changed)


def test_sleeve_ends_where_the_outfit_says() -> None:
    outfit = replace(choose_outfit(np.random.default_rng(2), 0.0), top="t-shirt", sleeve_end=0.8, jacket=False)
    outfit = replace(outfit, gloves=False, top_pattern="plain")
    upper_arm, forearm = (0.25, -0.014, 0.42), (0.38, -0.10, 0.29)
    found = cloth_regions(np.array([upper_arm, forearm], np.float32), outfit)
    assert found.tolist() == [Region.TOP, Region.SKIN]


def test_caption_names_the_hand() -> None:
    palette = choose_palette(np.random.default_rng(1), "tan", True)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        said = captions.caption(facts(), palette.names, "ink", rng, hand=stylist.Hand(line=1, colour=-1))
        assert any(words in said for words in captions.HAND_WORDS["line", 1])
        assert any(words in said for words in captions.HAND_WORDS["colour", -1])


@pytest.mark.parametrize("style", list(stylist.STYLES))
def test_every_style_follows_from_the_scene_and_the_hand_alone(style: str) -> None:
    drawn = scene()
    guide = make_guide(drawn, choose_palette(np.random.default_rng(5), "tan", False))
    first = stylist.stylise(guide, style)
    assert first.shape == (256, 256, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, stylist.stylise(guide, style))
    assert first.std() > 5
    other = stylist.stylise(guide, style, stylist.Hand(line=1, colour=-1))
    assert np.abs(other.astype(int) - first).mean() > 0.05


def test_a_moved_scene_gives_the_same_strokes() -> None:
    drawn, palette = scene(), choose_palette(np.random.default_rng(5), "tan", False)
    by = 4 * stylist.SCREEN
    moved = replace(
        drawn,
        ids=np.roll(drawn.ids, by, 1),
        normal=np.roll(drawn.normal, by, 1),
        depth=np.roll(drawn.depth, by, 1),
        shade=np.roll(drawn.shade, by, 1),
    )
    for style in stylist.STYLES:
        first = stylist.stylise(make_guide(drawn, palette), style).astype(int)
        second = stylist.stylise(make_guide(moved, palette), style)
        shift = by * stylist.PICTURE // SIZE
        assert np.abs(np.roll(first, shift, 1) - second)[:, 24:-24].max() <= 2, style


def test_half_tone_is_the_tint_that_it_makes_and_the_same_in_every_latent() -> None:
    drawn = scene()
    drawn = replace(drawn, shade=drawn.shade * np.linspace(0.1, 1, SIZE, dtype=np.float32)[:, None, None])
    guide = make_guide(drawn, choose_palette(np.random.default_rng(5), "tan", False))
    dotted, tinted = stylist.finish(stylist.comic(guide, stylist.PLAIN)), stylist.tinted_comic(guide, stylist.PLAIN)
    share = stylist.dotted(guide, stylist.PLAIN)
    assert np.array_equal(dotted, stylist.stylise(guide, "comic"))
    wholly = share > 0.99
    assert wholly.sum() > 20
    cells, tints = (x.reshape(64, 4, 64, 4, 3).transpose(0, 2, 1, 3, 4)[wholly].astype(float) for x in (dotted, tinted))
    assert np.abs(cells.mean((1, 2)) - tints.mean((1, 2))).max() < 3
    brightness = cells.mean((0, 3))
    assert brightness[1:3, 1:3].max() < 0.8 * min(brightness[0, 0], brightness[3, 3])  # a dot in each one's middle
    assert np.abs(dotted.astype(int) - tinted)[np.kron(share, np.ones((4, 4))) == 0].max() <= 1


def test_a_drawing_is_as_bright_as_the_render_shows_the_scene() -> None:
    drawn, palette = scene(), choose_palette(np.random.default_rng(5), "tan", False)
    dim = replace(drawn, shade=drawn.shade * 0.25)
    inside = drawn.ids == Region.TOP
    shown = render(dim, palette)[inside]
    grey = shown @ LUMINANCE
    lighter = shown[grey >= np.median(grey)]
    drawing = make_guide(dim, palette).base[inside]
    assert np.ptp(drawing, axis=0).max() == 0
    assert np.abs(drawing[0] - lighter.mean(0) ** LIFT).max() < 0.03
    assert drawing[0].mean() < make_guide(drawn, palette).base[inside][0].mean() - 0.1


def test_half_tone_repeats_every_two_latents() -> None:
    drawn = scene()
    guide = make_guide(drawn, choose_palette(np.random.default_rng(5), "tan", False))
    guide.light[:] = 0.2
    inside = stylist.stylise(guide, "comic")[96:160, 96:160].astype(int)
    assert inside.std() > 5
    assert np.abs(inside[:, 8:] - inside[:, :-8]).max() <= 1
    assert np.abs(inside[8:] - inside[:-8]).max() <= 1


def test_light_is_what_the_render_shows() -> None:
    drawn = scene()
    inside = drawn.ids == Region.TOP
    right = inside & (np.arange(SIZE) >= 0.6 * SIZE)
    shade = np.ones_like(drawn.shade)
    shade[right] = 0.2
    lit = replace(drawn, shade=shade)
    light = shown_light(lit, usual_light(lit))
    deep = cv2.erode(right.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    clear = cv2.erode((inside & ~right).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert light[deep].max() < 0 < 0.7 < light[clear].min()
    assert (light[drawn.ids == Region.SKY] == 1).all()
    dim = replace(drawn, shade=shade * 0.5)
    even = shown_light(dim, usual_light(dim))
    assert np.abs(even - light).max() < 1e-4


def test_scene_survives_the_disk(tmp_path: object) -> None:
    drawn = scene()
    path = tmp_path / "scene_000000.npz"  # type: ignore[operator]
    save_scene(path, drawn)
    read = load_scene(path)
    assert np.array_equal(read.ids, drawn.ids)
    assert np.abs(read.normal - drawn.normal).max() < 0.01
    assert np.abs(read.depth / drawn.depth - 1).max() < 0.01
    assert read.facts["subject"] == "old man"


def test_folding_whitens_latents_and_leaves_pictures_alone() -> None:
    from training.autoencoder import build
    from training.encode import fold, whitening

    torch.manual_seed(0)
    model = build((8, 16, 16)).eval()
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = model.decode(model.encode(pictures).latent_dist.mean).sample
        fold(model, *whitening(model.encode(pictures).latent_dist.mean))
        latents = model.encode(pictures).latent_dist.mean
        assert torch.allclose(model.decode(latents).sample, before, atol=1e-3)
    values = latents.permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(torch.cov(values), torch.eye(4), atol=1e-2)
    assert values.mean(1).abs().max() < 1e-3


def test_fresh_autoencoder_keeps_the_hues_of_broad_areas() -> None:
    from training.autoencoder import Coder, build, fit_highway, lay_colour_highway

    torch.manual_seed(0)
    coder = Coder(build()).eval()
    lay_colour_highway(coder.vae)
    colours = torch.tensor([[0.8, -0.6, 0.5], [-0.5, 0.7, -0.2], [0.6, 0.5, -0.7], [-0.6, -0.2, 0.8]])
    pictures = colours[:, :, None, None].expand(4, 3, 32, 32).reshape(2, 2, 3, 32, 32).permute(0, 2, 3, 1, 4)
    pictures = pictures.reshape(2, 3, 32, 64).contiguous()
    fit_highway(coder, pictures)
    with torch.no_grad():
        result = coder.vae.decode(coder.vae.encode(pictures).latent_dist.mean).sample
    assert (result - pictures)[:, :, 8:-8, 8:24].abs().mean() < 0.12


def test_measures_of_equal_pictures() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert measures.distance(picture, picture) == 0
    assert measures.similarity(picture, picture) == pytest.approx(1)
    assert measures.edge_overlap(picture, picture) == 1
    assert measures.rank_correlation([0.2, 0.4, 0.8], [1.0, 5.0, 6.0]) == pytest.approx(1)


def test_phrases_of_a_caption_are_where_parts_get_their_colours() -> None:
    known = facts()
    said = "ink drawing of a man, red and white striped t-shirt, wearing a blue trousers, gray short hair, teal sky"
    colours = {"top": "red", "bottom": "blue", "hair": "gray", "sky": "teal", "jacket": "red", "wall": "pink"}
    found = captions.phrases(known, colours | {"ground": "green"}, said)
    assert {part: said[slice(*span)] for part, span in found.items()} == {
        "top": "red and white striped t-shirt",
        "bottom": "blue trousers",
        "hair": "gray short hair",
        "sky": "teal sky",
    }


def test_a_stretch_goes_on_with_all_that_has_been_learnt(tmp_path: Path) -> None:
    first, again = (stretch_of_a_small_model(tmp_path / "a.pt") for _ in range(2))
    first.step = 7
    first.store()
    resumed = stretch_of_a_small_model(tmp_path / "a.pt")
    assert resumed.step == 7
    for module in ("model", "beside"):
        stored, read, fresh = (getattr(stretch, module).state_dict()["weight"] for stretch in (first, resumed, again))
        assert torch.equal(read, stored)
        assert not torch.equal(fresh, stored)


def test_a_rate_rises_over_the_first_steps_of_a_stretch_and_falls_until_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretch = stretch_of_a_small_model(tmp_path / "a.pt")
    stretch.step = 7
    stretch.store()
    resumed = stretch_of_a_small_model(tmp_path / "a.pt")
    monkeypatch.setattr(checkpoints.Stretch, "left", resumed.seconds)
    assert resumed.pace(4) == 1 / 4
    resumed.step += 3
    assert resumed.pace(4) == 1
    monkeypatch.setattr(checkpoints.Stretch, "left", resumed.seconds / 5)
    assert resumed.pace(4) == 1 / 5


def test_a_stage_that_was_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="python -m training captioner"):
        checkpoints.trained(tmp_path, "captioner")


def test_a_log_takes_up_a_column_that_comes_later(tmp_path: Path) -> None:
    log = checkpoints.Log(tmp_path / "logs" / "stage.csv")
    log.write({"step": 1, "loss": 0.5})
    log.write({"step": 2, "loss": 0.25, "disorder": 0.125})
    assert log.rows() == [
        {"step": "1", "loss": "0.5", "disorder": ""},
        {"step": "2", "loss": "0.25", "disorder": "0.125"},
    ]


def stretch_of_a_small_model(path: Path) -> checkpoints.Stretch:
    """Return a stretch of a model that learns nothing."""
    model, beside = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    optimiser = torch.optim.AdamW([*model.parameters(), *beside.parameters()])
    return checkpoints.Stretch(path, model, checkpoints.Averaged(model, 0.9), optimiser, 10, beside=beside)
