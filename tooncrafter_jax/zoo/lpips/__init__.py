"""LPIPS: network and weights."""
