"""What an application imports to read a live name: always the right collection and query model.

    from reembed import live
    docs = live.open("chroma:./chroma_db", "docs")
    docs.query(query_texts=["how to parse dates"], n_results=5)

Importing this module registers the embedding function `reembed`, with which a plain Chroma client
can open collections that reembed made. What a store says of a model that calls code, reads files,
or is elsewhere than at its provider's own address takes the application's word: `live.trust`.
"""

from reembed.stores.chroma.function import ReembedEmbeddingFunction
from reembed.stores.chroma.live import LiveCollection, open, trust

__all__ = ["LiveCollection", "ReembedEmbeddingFunction", "open", "trust"]
