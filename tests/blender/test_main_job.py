"""The main job in real Blender: capture, operators, results, and everything as it was afterwards."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from tools.extension import part


def fingerprint(scene: bpy.types.Scene) -> list[Any]:
    """Return the settings that a capture or a job could leave changed."""
    space = part("addon.scene.capture").find_viewport(bpy.context)[0]
    view, render, shading = scene.view_settings, scene.render, space.shading
    return [
        view.view_transform,
        view.look,
        view.exposure,
        view.gamma,
        scene.frame_current,
        render.engine,
        render.resolution_x,
        render.resolution_y,
        render.resolution_percentage,
        render.filepath,
        render.film_transparent,
        render.image_settings.file_format,
        shading.type,
        shading.light,
        shading.color_type,
        space.overlay.show_overlays,
        [item.name for item in bpy.context.selected_objects],
        sorted(item.name for item in bpy.data.objects),
    ]


def result_pixels(scene: bpy.types.Scene) -> Any:
    """Return the pixels of the scene's result."""
    return part("addon.scene.images").read_image(scene.viewport_diffusion.result)[..., :3]


def test_denoising_zero_brings_back_the_capture_itself(scene: bpy.types.Scene) -> None:
    scene.viewport_diffusion.img2img.denoising_strength = 0
    captured = part("addon.scene.capture").capture(bpy.context, 128, 128)
    assert captured.shape == (128, 128, 3) and captured.std() > 10
    assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
    assert np.array_equal(result_pixels(scene), captured)


def test_generate_changes_with_each_property_of_the_panel_and_with_nothing_else(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    bpy.ops.viewport_diffusion.generate()
    first = result_pixels(scene)
    bpy.ops.viewport_diffusion.generate()
    assert np.array_equal(result_pixels(scene), first)
    for group, name, value in (
        (settings.diffusion, "cfg_scale", 4.0),
        (settings.img2img, "denoising_strength", 0.5),
        (settings.diffusion, "seed", 8),
        (settings.diffusion, "steps", 6),
        (settings.diffusion, "sampler", "DPM++ 2M"),
        (settings.diffusion, "prompt", "ink line drawing"),
    ):
        before = getattr(group, name)
        setattr(group, name, value)
        bpy.ops.viewport_diffusion.generate()
        assert not np.array_equal(result_pixels(scene), first), name
        setattr(group, name, before)


def test_inpaint_by_object_keeps_every_other_pixel(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.img2img.denoising_strength = 0
    bpy.ops.viewport_diffusion.generate()
    before = result_pixels(scene)
    settings.capture.mask_source = "OBJECT"
    settings.capture.mask_object = bpy.data.objects["Cube"]
    settings.inpaint.mask_blur = 0
    settings.inpaint.denoising_strength = 0.9
    assert bpy.ops.viewport_diffusion.inpaint() == {"FINISHED"}
    view = part("addon.scene.capture").camera_view(bpy.context, 128, 128)
    mask = part("addon.scene.masks").current_mask(bpy.context, view)
    after = result_pixels(scene)
    assert np.array_equal(after[mask == 0], before[mask == 0])
    assert np.abs(after[mask == 1].astype(int) - before[mask == 1]).mean() > 5


def test_results_survive_save_and_reopen(scene: bpy.types.Scene, tmp_path: Path) -> None:
    scene.viewport_diffusion.img2img.denoising_strength = 0.3
    bpy.ops.viewport_diffusion.generate()
    name, pixels = scene.viewport_diffusion.result.name, result_pixels(scene)
    infotext = scene.viewport_diffusion.result["parameters"]
    assert bpy.ops.viewport_diffusion.result_to_plane() == {"FINISHED"}
    assert bpy.ops.viewport_diffusion.result_to_background() == {"FINISHED"}
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    bpy.ops.wm.open_mainfile(filepath=path)
    scene = bpy.context.scene
    assert scene.viewport_diffusion.result.name == name and np.array_equal(result_pixels(scene), pixels)
    assert scene.viewport_diffusion.result["parameters"] == infotext and "Seed: 7" in infotext
    assert scene.camera.data.background_images[0].image.name == name
    assert bpy.data.objects[name].material_slots[0].material.node_tree.nodes.active.image.name == name


def test_settings_are_as_before_after_success_error_and_cancel(scene: bpy.types.Scene) -> None:
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.exposure = 0.5
    scene.frame_set(3)
    before = fingerprint(scene)
    assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
    assert fingerprint(scene) == before
    scene.viewport_diffusion.diffusion.model = "/nowhere/model.safetensors"
    with pytest.raises(RuntimeError, match="There is no model at"):
        bpy.ops.viewport_diffusion.generate()
    assert fingerprint(scene) == before
    scene.viewport_diffusion.diffusion.model = "embedded"
    scene.viewport_diffusion.diffusion.steps = 150
    jobs, generate = part("addon.jobs"), part("addon.operators.generate")
    request, _ = generate.VIEWPORT_DIFFUSION_OT_generate.request(None, bpy.context)
    job = jobs.submit(request, "Generate", lambda job: None)
    while not job.message.startswith("Step"):
        jobs.drain()
        time.sleep(0.01)
    assert bpy.ops.viewport_diffusion.cancel() == {"FINISHED"}
    jobs.wait(job)
    assert job.kind == "cancelled"
    assert fingerprint(scene) == before


def test_a_failed_capture_leaves_the_settings_alone(scene: bpy.types.Scene) -> None:
    before = fingerprint(scene)
    scene.camera = None
    with pytest.raises(RuntimeError, match="no camera"):
        bpy.ops.viewport_diffusion.generate()
    assert fingerprint(scene) == before


def test_outpaint_and_upscale_go_on_from_the_result(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.img2img.denoising_strength = 0
    bpy.ops.viewport_diffusion.generate()
    before = result_pixels(scene)
    settings.outpaint.pixels_right, settings.outpaint.mask_blur = 64, 2
    assert bpy.ops.viewport_diffusion.outpaint() == {"FINISHED"}
    wider = result_pixels(scene)
    assert wider.shape == (128, 192, 3) and np.array_equal(wider[:, :100], before[:, :100])
    settings.upscale.upscaler, settings.upscale.scale = "Lanczos", 2.0
    assert bpy.ops.viewport_diffusion.upscale() == {"FINISHED"}
    assert result_pixels(scene).shape == (256, 384, 3)


def test_without_a_result_the_sentence_says_what_to_do(scene: bpy.types.Scene) -> None:
    with pytest.raises(RuntimeError, match="no result yet: generate a picture"):
        bpy.ops.viewport_diffusion.upscale()


def test_a_transparent_capture_keeps_its_transparency(scene: bpy.types.Scene) -> None:
    scene.viewport_diffusion.capture.transparent = True
    scene.viewport_diffusion.img2img.denoising_strength = 0.3
    captured = part("addon.scene.capture").capture(bpy.context, 128, 128)
    assert captured.shape[2] == 4 and captured[0, 0, 3] == 0 and captured[64, 64, 3] == 255
    bpy.ops.viewport_diffusion.generate()
    result = part("addon.scene.images").read_image(scene.viewport_diffusion.result)
    assert np.array_equal(result[..., 3], captured[..., 3])


def test_presets_come_with_the_extension_and_can_be_added_and_removed(scene: bpy.types.Scene) -> None:
    presets = part("addon.presets")
    assert len(list((presets.BUNDLED / presets.SUBFOLDER).glob("*.py"))) >= 8
    presets.apply_preset("heavy repaint")
    assert scene.viewport_diffusion.diffusion.cfg_scale == 5.0
    scene.viewport_diffusion.diffusion.steps = 33
    bpy.ops.viewport_diffusion.preset_add(name="My own")
    scene.viewport_diffusion.diffusion.steps = 4
    presets.apply_preset("My own")
    assert scene.viewport_diffusion.diffusion.steps == 33
    bpy.ops.viewport_diffusion.preset_add(name="My own", remove_name=True)
    with pytest.raises(presets.InvalidRequest, match="Anime Cel"):
        presets.find_preset("My own")
    bundled = presets.find_preset("Anime Cel")
    with pytest.raises(RuntimeError, match="comes with the extension"):
        bpy.ops.viewport_diffusion.preset_add(name=bundled.stem, remove_name=True)
    assert bundled.is_file()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("settings.diffusion.steps = 9\nprint('run')", "Line 2 of the preset is no setting"),
        ("settings.diffusion.steps = open('/dev/null')", "Line 1 of the preset is no setting"),
        ("settings.diffusion.steps = 9\nsettings.diffusion.sampler = 'Nonsense'", "a value for Sampling Method"),
        ("settings.diffusion.steps = 9\nsettings.diffusion.seed = 10**400", "Line 2"),
        ("settings.diffusion.steps = 9\nsettings.diffusion.seed = 99999999999999", "a value for Seed"),
        ("settings.diffusion.steps = 9\nsettings.diffusion = 3", "Line 2"),
        ("settings.diffusion.steps = 9\nsettings.diffusion.prompt = 'cut off", "damaged"),
    ],
)
def test_a_preset_that_is_damaged_or_code_changes_nothing(
    scene: bpy.types.Scene, tmp_path: Path, lines: str, sentence: str
) -> None:
    path = tmp_path / "Strange.py"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(RuntimeError, match=sentence):
        bpy.ops.viewport_diffusion.preset_apply(filepath=str(path))
    assert scene.viewport_diffusion.diffusion.steps == 4


def test_a_preset_of_another_version_gives_what_is_known(scene: bpy.types.Scene, tmp_path: Path) -> None:
    path = tmp_path / "Newer.py"
    path.write_text("import bpy\nsettings.diffusion.steps = 9\nsettings.later.thing = 1\n", encoding="utf-8")
    assert part("addon.presets").apply_file(scene, path) == ["later.thing"]
    assert scene.viewport_diffusion.diffusion.steps == 9


def test_the_command_renders_frames_with_their_parameters(
    scene: bpy.types.Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = part("addon.cli")
    cube = bpy.data.objects["Cube"]
    for frame, x in ((1, 0.0), (3, 2.0)):
        cube.location.x = x
        cube.keyframe_insert("location", frame=frame)
    scene.frame_set(2)
    output = tmp_path / "out"
    arguments = ["render", "--frames", "1-3", "--preset", "Anime Cel", "--output", str(output), "--steps", "2"]
    assert cli.main([*arguments, "--cfg-scale", "4"]) == 0
    paths = sorted(output.iterdir())
    assert [path.name for path in paths] == ["0001.png", "0002.png", "0003.png"]
    images = [bpy.data.images.load(str(path)) for path in paths]
    pixels = [part("addon.scene.images").read_image(image) for image in images]
    assert not np.array_equal(pixels[0], pixels[2])
    assert b"CFG scale: 4.0" in paths[0].read_bytes() and b"cel shading" in paths[0].read_bytes()
    assert scene.frame_current == 2
    assert cli.main(["render", "--preset", "Nonsense", "--output", str(output)]) == 2
    assert "no preset called" in capsys.readouterr().err
    assert cli.main(["render", "--frames", "4-1", "--output", str(output)]) == 2


def test_the_command_inpaints_and_runs_scripts(
    scene: bpy.types.Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, read_image = part("addon.cli"), part("addon.scene.images").read_image
    settings = scene.viewport_diffusion
    settings.capture.mask_source, settings.capture.mask_object = "OBJECT", bpy.data.objects["Cube"]
    arguments = ["render", "--inpaint", "--steps", "2", "--mask-blur", "0", "--output", str(tmp_path)]
    assert cli.main(arguments) == 0
    view = part("addon.scene.capture").camera_view(bpy.context, 128, 128)
    mask = part("addon.scene.masks").current_mask(bpy.context, view)
    plain = part("addon.scene.capture").capture(bpy.context, 128, 128)
    frame = read_image(bpy.data.images.load(str(tmp_path / "0001.png")))[..., :3]
    assert np.array_equal(frame[mask == 0], plain[mask == 0]) and not np.array_equal(frame, plain)
    script = ["render", "--script", "loopback", "--loops", "2", "--steps", "2", "--output", str(tmp_path / "loop")]
    assert cli.main(script) == 0
    assert sorted(path.name for path in (tmp_path / "loop").iterdir()) == ["0001-1.png", "0001-2.png", "0001.png"]
    assert cli.main(["render", "--loops", "2", "--output", str(tmp_path / "none")]) == 2
    assert "has no --loops. It belongs to Loopback." in capsys.readouterr().err


def test_seeds_are_reused_and_made_random_again(scene: bpy.types.Scene) -> None:
    scene.viewport_diffusion.diffusion.seed = -1
    scene.viewport_diffusion.img2img.denoising_strength = 0
    bpy.ops.viewport_diffusion.generate()
    used = part("addon.scene.results").seed_of(scene.viewport_diffusion.result)
    assert used >= 0
    bpy.ops.viewport_diffusion.reuse_seed()
    assert scene.viewport_diffusion.diffusion.seed == used
    bpy.ops.viewport_diffusion.random_seed()
    assert scene.viewport_diffusion.diffusion.seed == -1


def test_every_panel_lays_out_in_every_state(scene: bpy.types.Scene, addon: ModuleType) -> None:
    panels, jobs = part("addon.panels"), part("addon.jobs")

    class Layout:
        """Records what is laid out; anything may be called on it."""

        def __init__(self, names: list[str]) -> None:
            self.names = names

        def __getattr__(self, name: str) -> Any:
            def call(*args: Any, **kwargs: Any) -> Layout:
                if name == "prop":
                    assert args[1] in args[0].bl_rna.properties, args[1]
                    self.names.append(args[1])
                elif name in ("operator", "operator_menu_enum"):
                    assert hasattr(bpy.ops.viewport_diffusion, args[0].partition(".")[2])
                    self.names.append(args[0])
                elif name in ("label", "progress"):
                    self.names.append(kwargs["text"])
                return self

            return call

    def drawn() -> list[str]:
        names: list[str] = []
        for panel in (cls for cls in panels.CLASSES if issubclass(cls, bpy.types.Panel)):
            owner = type("Drawn", (), {"layout": Layout(names)})()
            panel.draw(owner, bpy.context)
        return names

    names = drawn()
    assert {"prompt", "cfg_scale", "denoising_strength", "viewport_diffusion.generate"} <= set(names)
    interrogate = scene.viewport_diffusion.interrogate
    assert set(interrogate.bl_rna.properties.keys()) - {"rna_type", "name"} <= set(names)
    assert any("With a ranking model" in name for name in names)
    interrogate.ranking_model = "openai/clip-vit-large-patch14"
    assert not any("With a ranking model" in name for name in drawn())
    scene.viewport_diffusion.diffusion.cfg_scale = 20
    assert any("distorts" in name for name in drawn())
    job = jobs.Job("test", "Generate", lambda job: None, kind="progress", progress=0.5, message="Step 2 of 4")
    jobs._state.jobs["test"] = job
    names = drawn()
    assert "viewport_diffusion.cancel" in names and any("Step 2 of 4" in name for name in names)
    job.kind, job.message, job.remedy = "failed", "It broke.", "Mend it."
    assert any("It broke" in name for name in drawn())
    del jobs._state.jobs["test"]


def test_inpaint_takes_size_and_transparency_from_the_source_panel(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.img2img.resize_mode, settings.img2img.keep_alpha = "crop_and_resize", False
    settings.capture.size, settings.capture.scale = "SCALE", 2.0
    generate, declared = part("addon.operators.generate"), part("backend.settings")
    for cls in (declared.Img2Img, declared.Inpaint):
        chosen = generate.scripted(bpy.context, cls)
        assert (chosen.resize_mode, chosen.keep_alpha, chosen.resize_by) == ("crop_and_resize", False, 2.0)
    settings.script = "alternative"
    with pytest.raises(part("backend.errors").InvalidRequest, match="whole pictures"):
        generate.scripted(bpy.context, declared.Inpaint)


def test_a_grid_is_no_picture_of_the_view(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.diffusion.steps = 1
    settings.script = "xyz_plot"
    settings.xyz_plot.x_values = "2, 4"
    bpy.ops.viewport_diffusion.generate()
    assert settings.result.size[0] >= 256 and settings.result["viewport_diffusion_view"] == ""
    settings.script = "NONE"
    bpy.ops.viewport_diffusion.generate()
    assert settings.result["viewport_diffusion_view"].startswith("128×128 ")
