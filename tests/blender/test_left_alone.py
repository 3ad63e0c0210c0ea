"""What a capture leaves alone in real Blender: the artist's own renders, files and output settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from backend.imaging.metadata import read_infotext
from tools.extension import part


@pytest.fixture
def rendered(scene: bpy.types.Scene) -> bpy.types.Scene:
    """A scene whose captures are renders, of few samples."""
    scene.render.engine, scene.cycles.samples = "CYCLES", 1
    scene.viewport_diffusion.capture.shading = "RENDER"
    return scene


def render_result() -> bpy.types.Image:
    return next(image for image in bpy.data.images if image.type == "RENDER_RESULT")


def saved_render(path: Path) -> Any:
    """Return the pixels of the render that Blender shows."""
    render_result().save_render(str(path))
    image = bpy.data.images.load(str(path))
    pixels = part("addon.scene.images").read_image(image)
    bpy.data.images.remove(image)
    return pixels


def capture(scene: bpy.types.Scene) -> Any:
    return part("addon.scene.capture").capture(bpy.context, 64, 64)


@pytest.mark.parametrize(
    ("file_format", "color_mode", "color_depth"),
    [("OPEN_EXR", "RGB", "32"), ("OPEN_EXR_MULTILAYER", "RGBA", "32"), ("TIFF", "RGB", "16"), ("JPEG", "BW", "8")],
)
def test_the_output_keeps_its_format_mode_and_depth(
    rendered: bpy.types.Scene, file_format: str, color_mode: str, color_depth: str
) -> None:
    output = rendered.render.image_settings
    if hasattr(output, "media_type"):
        output.media_type = "MULTI_LAYER_IMAGE" if file_format.endswith("MULTILAYER") else "IMAGE"
    output.file_format, output.color_mode, output.color_depth = file_format, color_mode, color_depth
    capture(rendered)
    assert (output.file_format, output.color_mode, output.color_depth) == (file_format, color_mode, color_depth)


def test_the_compositor_writes_no_files_and_still_composites(rendered: bpy.types.Scene, tmp_path: Path) -> None:
    rendered.use_nodes = True
    tree = rendered.node_tree
    inner = bpy.data.node_groups.new("Passes", "CompositorNodeTree")
    for nodes in (tree.nodes, inner.nodes):
        writer = nodes.new("CompositorNodeOutputFile")
        writer.base_path = str(tmp_path / "passes")
    tree.nodes.new("CompositorNodeGroup").node_tree = inner
    layers = next(node for node in tree.nodes if node.bl_idname == "CompositorNodeRLayers")
    result = next(node for node in tree.nodes if node.bl_idname == "CompositorNodeComposite")
    tree.links.new(layers.outputs[0], next(n for n in tree.nodes if n.bl_idname.endswith("OutputFile")).inputs[0])
    plain = capture(rendered)
    invert = tree.nodes.new("CompositorNodeInvert")
    tree.links.new(layers.outputs[0], invert.inputs["Color"])
    tree.links.new(invert.outputs[0], result.inputs[0])
    assert not np.array_equal(capture(rendered), plain)
    assert not (tmp_path / "passes").exists()
    assert not any(node.mute for node in (*tree.nodes, *inner.nodes))
    bpy.ops.render.render()
    assert list((tmp_path / "passes").iterdir()), "the artist's own render writes them"


def test_a_render_that_is_not_saved_stays(rendered: bpy.types.Scene, tmp_path: Path) -> None:
    bpy.ops.render.render()
    slots = render_result().render_slots
    before, active, count = saved_render(tmp_path / "before.png"), slots.active_index, len(slots)
    rendered.camera.location.x += 2
    captured = [capture(rendered) for _ in range(2)]
    assert slots.active_index == active and len(slots) == count + 1
    assert np.array_equal(saved_render(tmp_path / "after.png"), before)
    assert captured[0].shape != before.shape


def test_no_stamp_is_captured(rendered: bpy.types.Scene) -> None:
    plain = capture(rendered)
    rendered.render.use_stamp = True
    assert np.array_equal(capture(rendered), plain)
    assert rendered.render.use_stamp


def test_a_drawn_capture_needs_no_camera_and_renders_nothing_of_the_artists(
    scene: bpy.types.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.camera = None
    scene.viewport_diffusion.capture.source = "VIEWPORT"
    freed: list[bool] = []
    jobs = part("addon.jobs")
    monkeypatch.setattr(jobs, "device", lambda: "cuda")  # no card here
    monkeypatch.setattr(jobs, "free_memory", lambda: freed.append(True))
    names = {kind: set(getattr(bpy.data, kind).keys()) for kind in ("scenes", "objects", "cameras", "collections")}
    assert capture(scene).shape == (64, 64, 3)
    assert freed == []
    assert names == {kind: set(getattr(bpy.data, kind).keys()) for kind in names}
    bpy.ops.mesh.primitive_cube_add()
    with pytest.raises(RuntimeError, match="no camera"):
        bpy.ops.render.render()


@pytest.mark.parametrize("shading", ["TEXTURE", "RENDER"])
def test_a_look_of_the_scenes_own_transform_is_put_back(rendered: bpy.types.Scene, shading: str) -> None:
    rendered.viewport_diffusion.capture.shading = shading
    view = rendered.view_settings
    plain = capture(rendered)
    view.view_transform = "AgX"
    view.look = "AgX - Punchy"
    assert np.array_equal(capture(rendered), plain)
    assert (view.view_transform, view.look) == ("AgX", "AgX - Punchy")


def test_another_colour_configuration_is_captured_by_what_it_has(
    scene: bpy.types.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = part("addon.scene.capture")
    view = scene.view_settings
    before = view.view_transform, view.look
    monkeypatch.setattr(module, "PLAIN_TRANSFORMS", ("Un-tone-mapped", "Raw"))
    with module.standard_colours(scene):
        assert view.view_transform == "Raw"
    monkeypatch.setattr(module, "PLAIN_TRANSFORMS", ("Un-tone-mapped", "Video"))
    with pytest.raises(RuntimeError, match="Un-tone-mapped or Video"):
        bpy.ops.viewport_diffusion.generate()
    assert (view.view_transform, view.look) == before


def test_a_picture_larger_than_can_be_made_keeps_its_proportions(scene: bpy.types.Scene) -> None:
    scene.render.resolution_x, scene.render.resolution_y = 7680, 4320
    assert part("addon.scene.capture").picture_size(scene) == (4096, 2304)
    image = bpy.data.images.new("Wide", 8192, 2048)
    notes = part("addon.operators.parameters").send_image(scene, image, "IMG2IMG")
    assert notes == ["The size is 4096×1024: pictures have at most 4096 pixels a side."]
    assert (scene.viewport_diffusion.diffusion.width, scene.viewport_diffusion.diffusion.height) == (4096, 1024)


# --- Save Result As ---


@pytest.fixture
def result(scene: bpy.types.Scene) -> bpy.types.Image:
    """A finished picture."""
    scene.viewport_diffusion.img2img.denoising_strength = 0
    bpy.ops.viewport_diffusion.generate()
    return scene.viewport_diffusion.result


def painted(image: bpy.types.Image) -> None:
    """Paint all of an image, as a brush does: in its own buffer."""
    colour = np.array([0.2, 0.4, 0.6, 1.0], np.float32)[: image.channels]
    image.pixels.foreach_set(np.tile(colour, image.size[0] * image.size[1]))
    image.update()


def test_a_painted_result_is_saved_as_painted_and_stays_painted(result: bpy.types.Image, tmp_path: Path) -> None:
    images, path = part("addon.scene.images"), tmp_path / "näh.png"
    result["parameters"] = "ein Bild, 夜\nSteps: 4"
    painted(result)
    assert result.is_dirty
    images.save_image(result, path)
    assert result.is_dirty, "only saving the blend file packs the paint"
    loaded = bpy.data.images.load(str(path))
    assert np.array_equal(images.read_image(loaded)[..., :3], np.full((128, 128, 3), (51, 102, 153)))
    assert read_infotext(path) == "ein Bild, 夜\nSteps: 4"
    name = result.name
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "painted.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "painted.blend"))
    assert tuple(images.read_image(bpy.data.images[name])[5, 5, :3]) == (51, 102, 153)


def test_a_result_that_is_no_png_is_encoded_as_one(scene: bpy.types.Scene, tmp_path: Path) -> None:
    images, path = part("addon.scene.images"), tmp_path / "result.png"
    source = bpy.data.images.new("Source", 8, 8)
    source.file_format = "JPEG"
    source.save(filepath=str(tmp_path / "source.jpg"))
    opened = bpy.data.images.load(str(tmp_path / "source.jpg"))
    for packed in (False, True):
        if packed:
            opened.pack()
        images.save_image(opened, path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_saving_where_nothing_can_be_written_is_a_sentence(
    result: bpy.types.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.png"
    path.write_bytes(b"older")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(part("addon.scene.images"), "write_atomically", full)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="No space left"):
            bpy.ops.viewport_diffusion.save_result(filepath=str(path))
        assert path.read_bytes() == b"older"
        painted(result)
