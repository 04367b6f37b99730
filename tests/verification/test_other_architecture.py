"""A folder of quite another architecture: nothing may depend on the stored folder's numbers.

There is no published code to make its numbers, so it holds our own: the test shows that every operation runs, that its
results have the right form and that they come out the same a second time, through files.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.verification.folders import TINY, OfficialNames, write_folder, write_keys
from tooncrafter_jax.verification.folder import Folder
from tooncrafter_jax.verification.operations import OPERATIONS
from tooncrafter_jax.verification.run import verify

FRAMES, HEIGHT, WIDTH, STEPS = 12, 8, 12, 2
"""Longer than the model's clips of 8 frames, so that decoding goes through two windows."""


def other_config():
    config = json.loads((TINY / "config.json").read_text())
    config["diffusion"] |= {"timesteps": 600, "linear_start": 0.001, "linear_end": 0.02, "scale_factor": 0.3}
    config["diffusion"] |= {"base_scale": 0.6, "turning_step": 250, "original_elbo_weight": 0.5, "l_simple_weight": 0.7}
    shared = {"model_channels": 32, "channel_mult": [1, 2, 3], "num_res_blocks": 1, "context_dim": 24}
    config["unet"] |= {**shared, "num_head_channels": 8, "attention_resolutions": [2, 1], "transformer_depth": 2}
    config["unet"] |= {"temporal_length": 8, "default_fs": 7}
    config["sketch_encoder"] |= {**shared, "num_head_channels": 4, "attention_resolutions": [1]}
    config["vae"]["ddconfig"] |= {"ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1}
    config["open_clip"]["vision_cfg"] |= {"layers": 2, "width": 48, "head_width": 12, "patch_size": 28}
    config["open_clip"]["text_cfg"] |= {"width": 24, "heads": 3, "layers": 2}
    config["image_projector"] |= {"dim": 40, "depth": 1, "dim_head": 8, "heads": 3, "num_queries": 4, "ff_mult": 2}
    config["image_projector"] |= {"embedding_dim": 48, "output_dim": 24, "video_length": 6}
    return config


def noise(name, *shape):
    return {"noise": name, "shape": list(shape)}


def cases():
    def case(operation, inputs=None, **settings):
        return {"operation": operation, "inputs": inputs or {}, "settings": settings}

    def stored(name, **step):
        return {"array": f"inputs.npz:{name}", "then": [step]} if step else {"array": f"inputs.npz:{name}"}

    step = {name: noise(name, 3, 4, 5, 2, 2) for name in ("x", "cond", "uncond", "noise")}
    common = {"timesteps": {"value": [311]}, "context": noise("context", 1, 77 + 10, 24)}
    clip = {**common, "x": noise("clip", 1, 8, 5, 8, 12), "fs": None}
    sketched = {**common, "x": noise("sketched", 1, 4, 5, 8, 12), "hint": stored("hint", hint=True)}
    hidden = [(32, 16, 24), (64, 8, 12), (64, 4, 6), (32, 16, 24)]
    references = {"list": [noise(f"r{i}", 1, c, 2, h, w) for i, (c, h, w) in enumerate(hidden)]}
    latents = {"z": noise("z", 6, 4, 4, 6)}
    pictures = {"image": noise("pictures", 3, 3, 18, 20)}
    drawn = {
        "prompt": {"value": "two cats"},
        "fs": {"value": 9},
        "posterior_noise": noise("posterior", FRAMES, 4, HEIGHT, WIDTH),
        "x_T": noise("x_T", 1, 4, FRAMES, HEIGHT, WIDTH),
        "step_noise": {"list": [noise(f"s{i}", 1, 4, FRAMES, HEIGHT, WIDTH) for i in range(STEPS)]},
    }
    fitting = {"image_first": stored("first", image=True), "image_last": stored("last", image=True)}
    app = {"image_first": stored("any"), "image_last": stored("any")}
    run = {"steps": STEPS, "eta": 0.5, "scale": 4.0}
    trailing = {"spacing": "uniform_trailing", "rescale": 0.5}
    parameters = [
        "init_attn.0.proj_in.weight",
        "output_blocks.1.0.skip_connection.weight",
        "output_blocks.3.3.conv.weight",
    ]
    gradient = {
        "cotangent": noise("cotangent", 1, 4, 5, 8, 12),
        "parameters": {"value": ["model.diffusion_model." + name for name in parameters]},
    }
    loss = {"latent": noise("l", 1, 4, 5, 8, 12), "noise": noise("n", 1, 4, 5, 8, 12), "fs": {"value": [8]}}
    concat = {"concat": noise("concat", 1, 4, 5, 8, 12)}
    motion = {"flow": noise("flow", 3, 4, 32, 48), "mask": noise("mask", 3, 1, 32, 48)}
    whole = {"flow": noise("flow2", FRAMES - 2, 4, 32, 48), "mask": noise("mask2", FRAMES - 2, 1, 32, 48)}
    even = {"first": noise("way", 2, 8, 12), "last": noise("back", 2, 8, 12), "share": noise("share", 1, 8, 12)}
    return {
        "sinusoids": case("timestep_embedding", {"timesteps": {"value": [0, 5, 599]}}, dim=30),
        "schedule": case("schedule"),
        "tables": case("sampler_schedule", spacing="uniform", steps=7, eta=0.3),
        "guided": case("guidance", {k: step[k] for k in ("cond", "uncond")}, scale=3.0, rescale=0.2),
        "unguided": case("ddim_step", {**step, "uncond": None}, **trailing, steps=9, eta=1.0, index=8, scale=1.0),
        "out": case("unet", clip),
        "stats": case("unet_block_stats", clip),
        "gradient": case("unet_gradient", {**clip, **gradient}),
        "even": case("linear_motion", even, frames=5),
        "smaller": case("motion_at_size", motion, size=[8, 12]),
        "warped": case("warp", {"image": noise("image", 3, 5, 8, 12), "flow": noise("flow3", 3, 2, 8, 12)}),
        "carried": case("warp_features", {"features": noise("features", 1, 6, 5, 8, 12), **motion}),
        "known": case("condition_latents", {"latents": noise("latents", 1, 4, 5, 8, 12), **motion}),
        "stem": case(
            "temporal_transformer_with_motion", {"x": noise("x", 1, 32, 5, 8, 12), **motion}, module="init_attn.0"
        ),
        "guided out": case("unet_with_motion", {**clip, **motion}),
        "guided stats": case("unet_block_stats_with_motion", {**clip, **motion}),
        "guided gradient": case("unet_gradient_with_motion", {**clip, **gradient, **motion}),
        "sketch": case("sketch_encoder", sketched),
        "control": case("unet_with_control", {**sketched, **concat, "fs": {"value": [12]}}, control_scale=0.3),
        "ids": case("tokenizer", {"prompts": {"value": ["hello", "a b c"]}}),
        "text": case("text_encoder", {"tokens": {"case": "ids", "result": "tokens"}}),
        "pixels": case("image_preprocess", {"image": fitting["image_first"]}),
        "image": case("image_encoder", {"image": fitting["image_first"]}),
        "projected": case("image_projector", {"tokens": {"case": "image", "result": "tokens"}}),
        "encoded": case("encoder", {**pictures, "noise": noise("e", 3, 4, 4, 5)}),
        "hidden": case("encoder_hidden", pictures),
        "decoded": case("decoder", {**latents, "references": references}, frames=6),
        "without": case("decoder", {**latents, "references": None}, frames=3),
        "stages": case("decoder_intermediate", {**latents, "references": references}, frames=6),
        "plain": case("plain_decoder", latents),
        "losses": case("losses", {**common, **loss, **concat}, dynamic_rescale=True),
        "sample": case("pipeline_inference", {**fitting, **drawn}, frames=FRAMES, **trailing, **run),
        "three": case("pipeline_multicond", {**fitting, **drawn}, frames=FRAMES, **trailing, **run, scale_img=None),
        "one": case("pipeline_inference", {**fitting, **drawn}, frames=FRAMES, **{**trailing, **run, "scale": 1.0}),
        "moved": case("pipeline_motion", {**fitting, **drawn, **whole}, guided=True, frames=FRAMES, **trailing, **run),
        "app": case("pipeline_app", {**app, **drawn}, height=32, width=48, **run),
    }


@pytest.mark.slow
def test_a_folder_of_another_architecture(tmp_path):
    config, made = other_config(), cases()
    # The hint encoder divides by 8 in every model, so that sketches do not fit this first stage, which divides by 4.
    assert {case["operation"] for case in made.values()} == set(OPERATIONS) - {"pipeline_sketch"}
    rng = np.random.default_rng(0)
    sizes = {"first": (32, 48, 3), "last": (32, 48, 3), "any": (70, 31, 3), "hint": (5, 64, 96)}
    inputs = {name: rng.integers(0, 256, size, dtype=np.uint8) for name, size in sizes.items()}
    write_folder(tmp_path, config, made, inputs, write_keys(tmp_path, config, OfficialNames()))
    folder = Folder(tmp_path)
    rows = verify(folder)
    assert len(rows) == len(folder.entries)
    assert [row.note for row in rows if row.verdict == "FAIL"] == []
    stored = np.load(tmp_path / "outputs.npz")
    assert all(np.isfinite(stored[key]).all() for key in stored.files if stored[key].dtype.kind == "f")
    assert stored["sample/frames"].shape == (1, 3, FRAMES, 32, 48)
    assert stored["sample/frames_second_pass"].shape == (1, 3, FRAMES - 2, 32, 48)
    assert stored["image/tokens"].shape == (1, 1 + 8 * 8, 48)
    assert stored["sample/image_context"].shape == (1, 24, 24)
    assert list(stored["stats/block_names"])[-1] == "output_blocks.5"
