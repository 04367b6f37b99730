"""Clips: what a record holds, how a set of them is written and read, and how it becomes training batches."""
