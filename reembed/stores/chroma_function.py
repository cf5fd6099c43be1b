"""The old place of `reembed.live.ReembedEmbeddingFunction`, kept for one release."""

from reembed.stores.chroma.function import ReembedEmbeddingFunction

__all__ = ["ReembedEmbeddingFunction"]
