"""The production of solid bodies: real motion, the same bytes always, and shapes that are closed."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tooncrafter_jax.curation.protocols import Production
from tooncrafter_jax.curation.synthetic import body_scenes, body_world
from tooncrafter_jax.curation.synthetic.bodies import Bodies
from tooncrafter_jax.curation.synthetic.body_scenes import describe, moves_to_the_end, plan_views
from tooncrafter_jax.curation.synthetic.body_shapes import SHAPES, disc
from tooncrafter_jax.curation.synthetic.body_world import FIELD_OF_VIEW, Body, Motion, World
from tooncrafter_jax.errors import UserError

SMALL = {"height": 32, "width": 40, "frames": 16}


@pytest.fixture(scope="module", autouse=True)
def _needs_the_extra():
    pytest.importorskip("pybullet", reason="needs the package 'pybullet' of the extra 'data'")


@pytest.fixture(scope="module")
def clips():
    production = Bodies(count=12, **SMALL)
    return {source: list(production.clips(source)) for source in production.sources()}


def test_is_a_production():
    production = Bodies(count=3)
    assert isinstance(production, Production) and production.name == "bodies"
    assert production.sources() == ["bodies-000000", "bodies-000001", "bodies-000002"]
    assert pickle.loads(pickle.dumps(production)) == production


def test_fields(clips):
    for source, (clip,) in clips.items():
        assert (clip.id, clip.source, clip.caption_from) == (f"{source}/0", source, "simulation")
        assert (len(clip), clip.height, clip.width, clip.fps, clip.effective_fps) == (16, 32, 40, 24, 24)
        assert clip.caption.endswith(("moving camera", "camera at rest"))


def test_something_moves_in_every_clip(clips):
    for (clip,) in clips.values():
        frames = clip.decode().astype(int)
        assert (np.abs(frames[-1] - frames[0]).max(axis=-1) > 24).mean() > 0.02, clip.caption
        assert (np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)) > 0.05).mean() > 0.8, clip.caption


def test_the_same_bytes_in_another_process_and_order(clips):
    program = (
        "import hashlib; from tooncrafter_jax.curation.synthetic.bodies import Bodies\n"
        f"production = Bodies(count=900, **{SMALL!r})\n"
        "for source in ('bodies-000007', 'bodies-000001'):\n"
        "    (clip,) = production.clips(source)\n"
        "    print(clip.caption, hashlib.sha256(b''.join(clip.frames)).hexdigest(), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    here = [clips[source][0] for source in ("bodies-000007", "bodies-000001")]
    digests = [hashlib.sha256(b"".join(clip.frames)).hexdigest() for clip in here]
    assert done.stdout.splitlines()[-2:] == [f"{c.caption}|{digest}" for c, digest in zip(here, digests, strict=True)]


def test_another_seed_makes_other_scenes(clips):
    (other,) = Bodies(seed=1, **SMALL).clips("bodies-000000")
    assert other.frames != clips["bodies-000000"][0].frames


def test_settings_change_with_what_clips_depend_on():
    base = Bodies().settings()
    assert Bodies(count=5).settings() == base
    assert all(
        Bodies(**change).settings() != base for change in ({"height": 64}, {"width": 64}, {"frames": 20}, {"seed": 2})
    )


@pytest.mark.parametrize("name", [*SHAPES, "floor"])
def test_surfaces_are_closed_and_look_outwards(name):
    """Each edge is walked once in each direction, and the volume that the triangles enclose is positive."""
    surface = disc(2.0, 3.0) if name == "floor" else SHAPES[name].surface(0.8, np.random.default_rng(0))
    corners = surface.points[surface.triangles.reshape(-1, 3)]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    large = np.linalg.norm(areas, axis=1) > 1e-9
    shading = surface.normals[surface.triangles.reshape(-1, 3)].mean(axis=1)
    assert ((areas * shading).sum(axis=1)[large] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-9)
    if name == "floor":
        np.testing.assert_allclose(np.linalg.norm(areas, axis=1).sum() / 2, np.pi * 4, rtol=0.02)
        return
    keys = np.unique(surface.points.round(6), axis=0, return_inverse=True)[1].reshape(-1)[
        surface.triangles.reshape(-1, 3)
    ]
    edges = [(int(t[i]), int(t[(i + 1) % 3])) for t in keys[large] for i in range(3)]
    assert sorted(edges) == sorted((b, a) for a, b in edges)
    volumes = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum(axis=1) / 6
    centre = (volumes[:, None] * corners.sum(axis=1) / 4).sum(axis=0) / volumes.sum()
    assert volumes.sum() > 0
    np.testing.assert_allclose(centre, 0, atol=1e-6)  # the simulation turns it about its centre of mass


def _drop(height=2.0, gravity=True, frames=30):
    surface = SHAPES["ball"].surface(1.0, np.random.default_rng(0))
    texture = np.full((8, 8, 3), 200, np.uint8)
    body = Body("ball", surface, texture, (0.0, 0.0, height), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    with World() as world:
        return world.simulate([body], frames, gravity, 0.6)


def test_bodies_fall_as_they_should_and_bounce():
    motion = _drop()
    seconds = np.arange(8) / 24
    np.testing.assert_allclose(motion.places[:8, 0, 2], 2.0 - 9.81 * seconds**2 / 2, atol=0.02)
    assert motion.places[:, 0, 2].min() > 0.4 and (np.diff(motion.places[:, 0, 2]) > 0.02).any()


def test_without_weight_nothing_falls():
    np.testing.assert_allclose(_drop(gravity=False).places[:, 0], [[0.0, 0.0, 2.0]] * 30, atol=1e-6)


def test_a_scene_that_comes_to_rest_is_known():
    assert not moves_to_the_end(_drop(height=0.45)) and moves_to_the_end(_drop(frames=16))


@pytest.mark.parametrize("at_rest", [True, False])
def test_the_camera_sees_all_bodies_throughout(at_rest):
    rng = np.random.default_rng(0)
    for seed in range(20):
        motion = Motion(rng.normal(size=(16, 3, 3)) * [1, 1, 0.5] + [0, 0, 1], np.zeros((16, 3, 4)))
        views = plan_views(np.random.default_rng(seed), motion, at_rest, (0.1, 0.4), 1.5)
        for frame, view in enumerate(views):
            ahead = (view.target - view.eye) / np.linalg.norm(view.target - view.eye)
            right = np.cross(ahead, [0, 0, 1])
            right /= np.linalg.norm(right)
            seen = motion.places[frame] - view.eye
            depth, slope = seen @ ahead, np.tan(FIELD_OF_VIEW / 2)
            assert (depth > 0.5).all() and view.eye[2] > 0
            assert (np.abs(seen @ np.cross(right, ahead)) < depth * slope).all()
            assert (np.abs(seen @ right) < depth * slope * 1.5).all()
        assert (np.ptp([view.eye for view in views], axis=0).max() < 1e-9) == at_rest


def test_rolling_bodies_roll_without_slipping():
    for body in body_scenes.rolling_bodies(np.random.default_rng(1), ["ball", "cylinder", "ring"]):
        radius = body.place[2]
        np.testing.assert_allclose(np.cross(body.spin, [0, 0, radius]), body.velocity, rtol=0.02, atol=1e-9)
        x, y, z, w = body.turn
        axis = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]  # its own upright axis, turned
        np.testing.assert_allclose([np.dot(axis, body.velocity), axis[2]], 0, atol=1e-9)


def test_shadows_lie_under_bodies():
    motion = Motion(np.array([[[0.0, 0.0, 0.6]]]), np.array([[[0.0, 0.0, 0.0, 1.0]]]))
    surface = SHAPES["ball"].surface(1.0, np.random.default_rng(0))
    body = Body(
        "ball",
        surface,
        np.full((8, 8, 3), 250, np.uint8),
        (0.0, 0.0, 0.6),
        (0.0, 0.0, 0.0, 1.0),
        (0.0,) * 3,
        (0.0,) * 3,
    )
    with World() as world:
        world.simulate([body], 1, True, 0.5)
        world.lay_floor(disc(6.0, 1.0), np.full((8, 8, 3), 200, np.uint8))
        view = body_world.View(np.array([0.0, -4.0, 3.0]), np.array([0.0, 0.0, 0.3]))
        picture = world.render(motion, 0, view, np.zeros((48, 48, 3), np.uint8), 48, 48).astype(int)
    floor = picture[40, 5, 0]
    shadow = np.argwhere((picture[..., 0] < floor * 0.75) & (picture[..., 0] > floor * 0.5))
    assert 20 < len(shadow) < 400
    assert np.abs(shadow.mean(axis=0) - [24, 24]).max() < 12


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["box", "box"], "two tumbling boxes"),
        (["ball"], "a tumbling ball"),
        (["box", "ball", "ball", "ring"], "a tumbling box, two balls and a ring"),
    ],
)
def test_captions(kinds, words):
    assert describe("tumbling", kinds) == words


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bodies(count=0), "count is 0"),
        (lambda: Bodies(frames=8), "frames is 8"),
        (lambda: Bodies(height=9), "height is 9"),
        (lambda: Bodies(width=4096), "width is 4096"),
        (lambda: list(Bodies(count=3).clips("bodies-000003")), "the last is 'bodies-000002'"),
        (lambda: list(Bodies().clips("intro")), "no scene 'intro'"),
    ],
)
def test_mistakes_are_reported(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_missing_extra_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    with pytest.raises(UserError, match=r"pip install 'tooncrafter-jax\[data\]'"):
        Bodies(count=1).sources()
