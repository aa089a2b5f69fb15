"""Choosing pictures (stage 1 of the paper): CLIP embeddings, clusters, masks, a data folder."""
