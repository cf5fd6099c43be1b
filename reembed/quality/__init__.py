"""Judging a migration: queries, exact search, metrics, statistics, and the verdict they add up
to."""
