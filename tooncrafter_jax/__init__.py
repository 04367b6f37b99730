"""ToonCrafter in JAX."""
