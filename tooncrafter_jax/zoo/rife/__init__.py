"""RIFE: its weights; the network is `models.rife`, a part of models that motion guides."""
