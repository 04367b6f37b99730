"""Processes of a run, and compiled programs that persist."""
