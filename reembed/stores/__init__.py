"""Store adapters; `registry.open_store` is the only place that imports them."""
