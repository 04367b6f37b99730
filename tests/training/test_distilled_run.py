"""A run of the stage `distill` from its start to what is exported."""

import jax
import numpy as np
import pytest

from tests.training.small import NARROW_CHANGES, config, write_begin
from tooncrafter_jax.sampling.request import make_options
from tooncrafter_jax.training import trainer as trainer_module
from tooncrafter_jax.training.sharding import make_mesh
from tooncrafter_jax.training.start import Start, architecture
from tooncrafter_jax.training.trainer import Trainer
from tooncrafter_jax.weights.store import Checkpoint


@pytest.mark.gate
@pytest.mark.heavy
def test_a_run_exports_a_student_that_says_how_to_sample_it(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "run_mesh", lambda *_: make_mesh("data:1", jax.devices()[:1]))
    start = write_begin(tmp_path / "start", architecture(config(clips, model_changes=NARROW_CHANGES)))
    settings = config(
        clips,
        "distill",
        start=str(start),
        model_changes={},
        steps=2,
        sample_every=2,
        data={"height": 16, "width": 16, "batch": 2},
        options={"times": 8, "steps": 2, "guidance_scale": 1.0},
    )
    trainer = Trainer(settings, tmp_path / "run")
    result = trainer.run()
    assert result.finished and np.isfinite(result.metrics["loss"])
    assert any((tmp_path / "run" / "samples").iterdir())
    exported = Checkpoint(tmp_path / "run" / "export")
    assert not any(component.startswith("teacher") for component in exported.components)
    options = make_options(exported.sampling)
    options.check(exported.config)
    assert (options.solver, options.steps, options.guidance_scale, options.is_guided) == ("lcm", 2, 1.0, False)
    # The teacher of a run that is resumed is the start's, not what the student has become.
    copies = Start(trainer.stage).load_on_host(trainer.stage.copies)
    begun, learnt = (
        checkpoint.restore_on_host("unet", exported.config.networks()["unet"])
        for checkpoint in (Checkpoint(start), exported)
    )
    assert copies.keys() == trainer.stage.copies.keys()
    for copy, path in trainer.stage.copies.items():
        name = path.removeprefix("unet.")
        np.testing.assert_array_equal(copies[copy], begun[name], err_msg=path)
        assert not np.array_equal(learnt[name], begun[name]), path
    # Nor may it change with the start: all of the denoiser learns here, so that nothing else tells the two apart.
    assert Start(trainer.stage).fingerprints(trainer.stage.copies)["unet"] == [Checkpoint(start).weights["unet"]]
