"""Rivals: other ways to draw the frames between two pictures, all behind one protocol (`in_betweener.InBetweener`).

`registry.in_betweeners` makes them from the names that a command line gives.
"""
