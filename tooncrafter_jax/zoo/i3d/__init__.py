"""I3D: network and weights."""
