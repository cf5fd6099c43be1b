"""Locks that hold writers back, and the sessions in their way."""
