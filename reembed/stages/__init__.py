"""Plan, export, embed, load: what happens before the verdict."""
