"""The provenance of a model that is put together has each training once."""

from tooncrafter_jax.weights.compact import without_repeated_runs


def test_a_run_stands_once_in_a_history():
    base = {"trained_by": "x", "steps": 900, "config": {"stage": "rectify", "seed": 1}}
    decoder = {"steps": 800, "config": {"stage": "decoder"}, "started_from": [base]}
    sketch = {"steps": 480, "config": {"stage": "sketch"}, "started_from": [base | {"steps": 901}, base]}
    history = without_repeated_runs({**decoder, "seed": 3, "taken": {"sketch_encoder": sketch}})
    again = {"stage": "rectify", "steps": 900, "told": "above"}
    expected = {**sketch, "started_from": [base | {"steps": 901}, again]}
    assert history == {**decoder, "seed": 3, "taken": {"sketch_encoder": expected}}
