"""Commands beside a migration: `init`, `try`, `compare`, `doctor` and `runs`."""
