"""HED: network and weights."""
