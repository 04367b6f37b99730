"""CRAFT: network and weights."""
