"""RIFE: network and weights."""
