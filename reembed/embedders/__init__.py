"""Embedding providers; `registry.open_embedder` is the only place that imports them."""
