"""Rows to and from COPY BINARY."""
