"""Evaluation: metrics, rivals, and the run that measures both on the same clips (spec section 10)."""
