"""The mannequin: what it brings into a scene, how it is posed, and what it says when it can't be."""

# Blender's stubs say less than Blender:
# mypy: disable-error-code="union-attr,attr-defined,arg-type,call-arg,func-returns-value,no-any-return,import-not-found"

from __future__ import annotations

from types import ModuleType

import bpy
import numpy as np
import pytest
from numpy.typing import NDArray

GROUND_TOLERANCE = 0.03  # metres
WANTED = {"Standing", "Walking", "Running", "Sitting", "Kneeling", "Arms Raised"} | {
    "Pointing",
    "Dancing",
    "Fighting",
    "T-Pose",
}
MEMBERS = {"Body", "Eyes", "Lashes", "Brows", "Hair", "Shirt", "Trousers", "Shoes", "Stool"}


@pytest.fixture
def mannequin(addon: ModuleType) -> ModuleType:
    """The functions under test, in an empty scene."""
    from bl_ext.user_default.viewport_diffusion.addon.scene import mannequin as functions

    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    for collection in list(bpy.data.collections):
        bpy.data.collections.remove(collection)
    bpy.data.orphans_purge(do_recursive=True)
    bpy.context.scene.cursor.location = (0, 0, 0)
    return functions


def vertices(figure: bpy.types.Object) -> NDArray[np.float64]:
    """Return the world places (N×3, metres) of the posed figure's own vertices, stool apart."""
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    clouds = []
    for child in figure.children:
        if child.type != "MESH" or child.get("viewport_diffusion_prop"):
            continue
        evaluated = child.evaluated_get(depsgraph)
        mesh = evaluated.to_mesh()
        points = np.empty(len(mesh.vertices) * 3, np.float32)
        mesh.vertices.foreach_get("co", points)
        world = np.array(evaluated.matrix_world)
        clouds.append(points.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3])
        evaluated.to_mesh_clear()
    return np.concatenate(clouds)


def base_name(item: bpy.types.ID) -> str:
    """Return a name without the number that Blender gives to a second copy."""
    return item.name.rsplit(".", 1)[0] if item.name[-3:].isdigit() else item.name


def test_figure_stands_on_the_cursor_and_is_as_tall_as_a_person(mannequin: ModuleType) -> None:
    bpy.context.scene.cursor.location = (2.0, 3.0, 1.0)
    points = vertices(mannequin.add_mannequin(bpy.context))
    assert abs(points[:, 2].min() - 1.0) < GROUND_TOLERANCE
    assert 1.5 < np.ptp(points[:, 2]) < 1.9
    assert abs(points[:, 0].mean() - 2.0) < 0.1


def test_added_figure_is_the_only_selected_and_the_active_object(mannequin: ModuleType) -> None:
    first = mannequin.add_mannequin(bpy.context)
    second = mannequin.add_mannequin(bpy.context)
    assert bpy.context.view_layer.objects.active == second
    assert [item for item in bpy.context.view_layer.objects if item.select_get()] == [second]
    assert first != second


def test_each_garment_is_an_object_with_its_own_textured_material(mannequin: ModuleType) -> None:
    figure = mannequin.add_mannequin(bpy.context)
    assert {base_name(child) for child in figure.children} == MEMBERS
    materials = {slot.material for child in figure.children for slot in child.material_slots}
    assert len(materials) >= 10
    for material in materials:
        texture = material.node_tree.nodes.active
        assert texture.type == "TEX_IMAGE", f"solid shading would not find the texture of {material.name}"
        assert texture.image.packed_file is not None
        assert texture.outputs["Color"].links[0].to_socket.name == "Base Color"
        assert min(texture.image.size) >= 128
        pixels = np.empty(len(texture.image.pixels), np.float32)
        texture.image.pixels.foreach_get(pixels)
        assert pixels.reshape(-1, 4)[:, :3].std(0).max() > 0.005, f"{texture.image.name} is one flat colour"
    for child in figure.children:
        assert child.data.uv_layers.active is not None
        used = {polygon.material_index for polygon in child.data.polygons}
        assert used == set(range(len(child.material_slots))), f"{child.name} has a material that nothing shows"


def test_library_has_the_poses_that_a_picture_starts_from(mannequin: ModuleType) -> None:
    names = mannequin.pose_names()
    assert len(names) == len(set(names)) >= 10
    assert set(names) >= WANTED


def test_every_pose_differs_and_rests_on_the_ground(mannequin: ModuleType) -> None:
    figure = mannequin.add_mannequin(bpy.context)
    shapes: dict[str, NDArray[np.float64]] = {}
    for name in mannequin.pose_names():
        mannequin.apply_pose(figure, name)
        points = vertices(figure)
        height = mannequin._library()["poses"][name]["height"]
        assert abs(points[:, 2].min() - height) < GROUND_TOLERANCE, name
        for other, shape in shapes.items():
            assert np.linalg.norm(points - shape, axis=1).max() > 0.15, f"{name} looks like {other}"
        shapes[name] = points


def test_pose_does_not_depend_on_the_pose_before(mannequin: ModuleType) -> None:
    figure = mannequin.add_mannequin(bpy.context)
    mannequin.apply_pose(figure, "Dancing")
    before = vertices(figure)
    mannequin.apply_pose(figure, "Sitting")
    figure.pose.bones["head"].scale = (2, 2, 2)
    mannequin.apply_pose(figure, "Dancing")
    assert np.abs(vertices(figure) - before).max() < 1e-4


def test_pose_holds_on_bones_that_turn_by_euler_angles(mannequin: ModuleType) -> None:
    figure = mannequin.add_mannequin(bpy.context)
    mannequin.apply_pose(figure, "Running")
    before = vertices(figure)
    for bone in figure.pose.bones:
        bone.rotation_mode = "XYZ"
    mannequin.apply_pose(figure, "Running")
    assert np.abs(vertices(figure) - before).max() < 1e-3


def test_stool_shows_only_under_the_sitting_figure(mannequin: ModuleType) -> None:
    figure = mannequin.add_mannequin(bpy.context)
    stool = next(child for child in figure.children if base_name(child) == "Stool")
    assert stool.hide_viewport and stool.hide_render
    mannequin.apply_pose(figure, "Sitting")
    assert not stool.hide_viewport and not stool.hide_render
    mannequin.apply_pose(figure, "Standing")
    assert stool.hide_viewport and stool.hide_render


def test_second_mannequin_is_posed_and_dressed_independently(mannequin: ModuleType) -> None:
    first = mannequin.add_mannequin(bpy.context)
    mannequin.apply_pose(first, "Running")
    before = vertices(first)
    second = mannequin.add_mannequin(bpy.context)
    mannequin.apply_pose(second, "T-Pose")
    assert np.abs(vertices(first) - before).max() < 1e-5
    mine = {slot.material for child in first.children for slot in child.material_slots}
    theirs = {slot.material for child in second.children for slot in child.material_slots}
    assert not mine & theirs


def test_set_brings_camera_light_backdrop_and_world(mannequin: ModuleType) -> None:
    mannequin.add_mannequin(bpy.context, with_set=True)
    kinds = [item.type for item in bpy.context.scene.objects]
    assert bpy.context.scene.camera is not None
    assert kinds.count("LIGHT") == 2
    assert "Backdrop" in {base_name(item) for item in bpy.context.scene.objects}
    assert base_name(bpy.context.scene.world) == "Mannequin World"


def test_without_the_set_scene_keeps_its_camera_and_world(mannequin: ModuleType) -> None:
    world = bpy.context.scene.world
    mannequin.add_mannequin(bpy.context)
    assert bpy.context.scene.camera is None
    assert bpy.context.scene.world == world


def test_other_objects_are_refused_with_a_sentence(mannequin: ModuleType) -> None:
    from bl_ext.user_default.viewport_diffusion.backend.errors import DiffusionError, InvalidRequest

    empty = bpy.data.objects.new("Lamp post", None)
    with pytest.raises(InvalidRequest, match="Lamp post isn't a mannequin"):
        mannequin.apply_pose(empty, "Standing")
    figure = mannequin.add_mannequin(bpy.context)
    with pytest.raises(InvalidRequest, match="no pose 'Levitating'"):
        mannequin.apply_pose(figure, "Levitating")
    assert issubclass(InvalidRequest, DiffusionError)


def test_missing_scene_file_is_refused_with_a_sentence(mannequin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from bl_ext.user_default.viewport_diffusion.backend.errors import DiffusionError

    monkeypatch.setattr(mannequin, "SCENE_FILE", mannequin.FOLDER / "elsewhere.blend")
    with pytest.raises(DiffusionError, match=r"elsewhere\.blend"):
        mannequin.add_mannequin(bpy.context)


def test_operators_add_and_pose_the_one_mannequin(mannequin: ModuleType) -> None:
    assert not bpy.ops.viewport_diffusion.apply_pose.poll()
    assert bpy.ops.viewport_diffusion.add_mannequin() == {"FINISHED"}
    figure = bpy.context.view_layer.objects.active
    before = vertices(figure)
    bpy.context.view_layer.objects.active = None  # there is only one, so there is no doubt
    assert bpy.ops.viewport_diffusion.apply_pose(pose="Arms Raised") == {"FINISHED"}
    assert vertices(figure)[:, 2].max() > before[:, 2].max() + 0.2


def test_of_two_mannequins_the_one_whose_garment_is_active_is_posed(mannequin: ModuleType) -> None:
    first = mannequin.add_mannequin(bpy.context)
    mannequin.add_mannequin(bpy.context)
    bpy.context.view_layer.objects.active = None
    assert mannequin.find_mannequin(bpy.context) is None
    assert not bpy.ops.viewport_diffusion.apply_pose.poll()
    bpy.context.view_layer.objects.active = next(child for child in first.children if base_name(child) == "Shirt")
    assert mannequin.find_mannequin(bpy.context) == first


def test_scene_file_states_its_licence_and_is_small(mannequin: ModuleType) -> None:
    assert mannequin.SCENE_FILE.stat().st_size < 4_000_000
    with bpy.data.libraries.load(str(mannequin.SCENE_FILE), link=False) as (source, target):
        assert "LICENCE" in source.texts
        target.texts = ["LICENCE"]
    text = target.texts[0].as_string()
    bpy.data.texts.remove(target.texts[0])
    assert "CC0" in text and "MakeHuman" in text
    assert "CC0" in (mannequin.FOLDER / "README.md").read_text(encoding="utf-8")
