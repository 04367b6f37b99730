"""Anime2Sketch: network and weights."""
