"""The live name moves: by renaming tables, or by exchanging columns."""
