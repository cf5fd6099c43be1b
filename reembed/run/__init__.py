"""One run on disk: its directory, journal, shards, ledger and caches; and durable writes."""
