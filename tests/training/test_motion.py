"""The stage `motion`, and motion that guides other stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import NARROW_CHANGES, config, fresh_params
from tooncrafter_jax.config_codec import to_dict
from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.rife import RifeConfig
from tooncrafter_jax.models.tooncrafter import BoundModel
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.training import start
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.encoding import motion_of
from tooncrafter_jax.training.stages.joint import Joint
from tooncrafter_jax.training.stages.stage import MODEL
from tooncrafter_jax.training.start import Start, architecture

pytestmark = pytest.mark.heavy

NARROW = {"batch": 2, "height": 16, "width": 16}


def stage_of(clips, name, **changes):
    settings = config(clips, name, **changes)
    return make_stage(settings, architecture(settings))


def batch_of(clips, stage):
    with Loader.open(stage.config.data) as loader:
        batch = {name: jnp.asarray(rows) for name, rows in next(loader).items() if name not in ("record", "stride")}
    return batch | {
        "hints": jnp.mean(batch["video"], axis=-1, keepdims=True) / 255 * batch["sketched"][..., None, None, None]
    }


def drawn(stage):
    return {path: jnp.asarray(value) for path, value in fresh_params(stage, 0).items()}


@pytest.fixture(scope="module", params=[1, 100])
def motion_stage(clips, request):
    """With an adversary, and without."""
    start = request.param
    return stage_of(clips, "motion", data={"batch": 2}, options={"discriminator": {"start_step": start}})


@pytest.mark.gate
def test_the_refinement_learns_alone_and_starts_as_the_flows(clips, motion_stage):
    trained = {path for path in motion_stage.components.abstract_params if motion_stage.is_trained(path)}
    assert trained and all(path.startswith("motion.refinement.") for path in trained)
    batch, params = batch_of(clips, motion_stage), drawn(motion_stage)
    run = jax.jit(lambda params, batch: motion_stage.reconstruct(motion_stage.bound(params), batch)[0])
    with_sketches = run(params, batch)
    np.testing.assert_array_equal(with_sketches, run(params, batch | {"hints": jnp.zeros_like(batch["hints"])}))
    ends = jnp.asarray([0, -1])
    np.testing.assert_allclose(with_sketches[:, ends], to_pixels(batch["video"])[:, ends], atol=1e-6)
    found = jax.jit(motion_stage.gradients)(params, batch, jax.random.key(0), jnp.asarray(0))
    assert set(found.by_optimizer[MODEL]) == trained
    assert max(float(jnp.abs(found.by_optimizer[MODEL][path]).max()) for path in trained if ".head." in path) > 0


@pytest.mark.gate
def test_sketches_are_validated_beside_their_absence(clips, motion_stage):
    batch = batch_of(clips, motion_stage) | {"valid": jnp.ones(2, bool)}
    metrics = jax.jit(motion_stage.validate)(drawn(motion_stage), batch)
    assert {"l1", "psnr", "l1_without_sketches", "psnr_without_sketches"} <= set(metrics)


def still(ends, frames, hints, most_sketches=None):
    """In place of a network: nothing moves."""
    return Motion(jnp.zeros((len(ends), frames, 1, 1, 4)), jnp.ones((len(ends), frames, 1, 1, 1)))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_motion_guides_its_share_of_the_clips_by_their_seeds(clips, share):
    stage = stage_of(clips, "rectify", motion_share=share)
    assert ("motion" in stage.uses) == stage.needs_pixels == bool(share)
    seeds = jnp.arange(1000, dtype=jnp.uint32)
    batch = {"video": jnp.zeros((1000, 3, 1, 1, 3), jnp.uint8), "seed": seeds}
    model = BoundModel(stage.model, lambda component: still)
    found = motion_of(model, batch, share)
    if not share:
        assert found is None
    elif share == 1.0:
        assert found is not None and found.guided is None
    else:
        assert found is not None and found.guided is not None
        assert abs(float(found.guided.mean()) - share) < 0.05


@pytest.mark.parametrize(("flow", "parts"), [({}, {"lines"}), (to_dict(RifeConfig()), {"lines", "flow"})])
def test_motion_that_no_checkpoint_gives_is_as_published(clips, monkeypatch, flow, parts):
    """But for flows of another architecture, which are drawn."""
    motion = {"flow": flow, "refinement_widths": (), "refinement_scales": (), "through_sketches": True}
    stage = stage_of(clips, "rectify", motion_share=1.0, model_changes=NARROW_CHANGES | {"motion": motion})
    shapes = {path: leaf.shape for path, leaf in stage.components.networks["motion"].abstract_params.items()}
    published = {path: np.full(shape, 0.5, np.float32) for path, shape in shapes.items()}
    monkeypatch.setattr(start, "published_motion", lambda *, through_sketches: through_sketches and published)
    found = Start(stage)
    paths = {f"motion.{path}" for path in shapes}
    loaded = found.load_on_host(paths)
    assert loaded.keys() == paths
    as_published = {path for path, value in loaded.items() if np.all(value == 0.5)}
    assert as_published == {path for path in paths if path.split(".")[1] in parts}
    given = [of for of in found.fingerprints(paths)["motion"] if of.startswith("published: ")]
    assert len(given) == len(parts)


def test_a_stage_that_motion_cannot_guide_says_so(clips):
    with pytest.raises(UserError, match=r"config.motion_share is 0.5, but motion guides nothing in the stage"):
        stage_of(clips, "autoencoder", motion_share=0.5)


def test_groups_without_parameters_are_named(clips):
    with pytest.raises(
        UserError, match=r"the stage 'decoder' is to train 'decoder.carried', of which this architecture"
    ):
        stage_of(clips, "decoder", groups=("decoder.carried",))


def test_motion_that_a_decoder_does_not_follow_is_refused(clips):
    with pytest.raises(UserError, match="this decoder carries nothing along motion"):
        stage_of(clips, "decoder", motion_share=1.0)


def test_a_denoiser_that_does_not_see_motion_does_not_learn_from_it(clips):
    for_decoder = NARROW_CHANGES | {"motion": {"guides_denoiser": False}}
    with pytest.raises(UserError, match="this denoiser does not see motion"):
        stage_of(clips, "rectify", motion_share=1.0, model_changes=for_decoder)
    with pytest.raises(UserError, match="this decoder carries nothing along motion"):
        stage_of(clips, "joint", motion_share=1.0, model_changes=for_decoder)
    carried = {"decoder": NARROW_CHANGES["decoder"] | {"carried": True}}
    assert stage_of(clips, "joint", motion_share=1.0, model_changes=for_decoder | carried).needs_pixels


def test_motion_needs_a_frame_between(clips):
    with pytest.raises(UserError, match="motion needs a frame between two others"):
        stage_of(clips, "motion", data={"frames": 2})


@pytest.mark.slow
def test_motion_changes_what_denoiser_and_decoder_make(clips):
    carried = {"decoder": NARROW_CHANGES["decoder"] | {"carried": True, "corrects_motion": True}}
    made = []
    for share in (0.0, 1.0):
        stage = stage_of(clips, "joint", motion_share=share, model_changes=NARROW_CHANGES | carried, data=NARROW)
        assert isinstance(stage, Joint)
        params = {path: value + 0.01 if path.startswith("unet.") else value for path, value in drawn(stage).items()}
        run = jax.jit(lambda params, batch, stage=stage: stage.reconstruct(stage.bound(params), batch))
        batch = {name: rows for name, rows in batch_of(clips, stage).items() if name != "hints"}
        video, given = run(params, batch)
        assert np.isfinite(video).all() and (given.motion is None) == (share == 0.0)
        made.append((video, given.latents))
    (video, latents), (guided_video, guided_latents) = made
    assert np.abs(latents - guided_latents).max() > 1e-4
    assert np.abs(video - guided_video).max() > 1e-2
