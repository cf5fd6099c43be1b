"""Engines: where shards are worked on."""
