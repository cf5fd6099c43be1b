"""A job that follows a corpus: what changed is carried into the live collection every time."""
