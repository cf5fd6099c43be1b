"""What a table is made of: names, columns, ids, indexes, what depends on it."""
