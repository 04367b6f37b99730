"""Training: one trainer for every stage, sharded over device meshes, with parameters frozen by optax masks."""
