"""The live name moves, there and back, and the old collection goes."""
