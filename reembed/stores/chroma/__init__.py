"""Chroma, on a path, over HTTP and in the cloud."""
