"""Layers that know nothing of ToonCrafter: attention, convolution, normalisation, embeddings."""
