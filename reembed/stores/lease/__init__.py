"""One writer for a store: who owns the lease, and what it guards."""
