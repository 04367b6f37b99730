"""Rivals: other ways to draw the frames between two pictures, all behind one protocol (`in_betweener.InBetweener`).

`registry.in_betweener` makes one from the name that a command line gives.
"""
