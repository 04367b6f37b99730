"""What a model that is put together tells of its components' training."""

from tooncrafter_jax.weights.compact import told_once


def test_a_history_istold_once():
    base = {"trained_by": "x", "steps": 900, "config": {"stage": "rectify", "seed": 1}}
    decoder = {"steps": 800, "config": {"stage": "decoder"}, "started_from": [base]}
    sketch = {"steps": 480, "config": {"stage": "sketch"}, "started_from": [base | {"steps": 901}, base]}
    told = told_once({**decoder, "seed": 3, "taken": {"sketch_encoder": sketch}}, set())
    again = {"stage": "rectify", "steps": 900, "told": "above"}
    expected = {**sketch, "started_from": [base | {"steps": 901}, again]}
    assert told == {**decoder, "seed": 3, "taken": {"sketch_encoder": expected}}
