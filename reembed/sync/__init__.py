"""One collection follows another."""
