"""What can be trained: a stage says which parameters, from what start, and by which loss."""

from tooncrafter_jax.training.stages.registry import STAGES, make_stage
from tooncrafter_jax.training.stages.stage import Gradients, Metrics, Stage

__all__ = ["STAGES", "Gradients", "Metrics", "Stage", "make_stage"]
