"""Commands. `python -m tooncrafter_jax COMMAND`, and the mains of `sample.py` and `train.py`."""
