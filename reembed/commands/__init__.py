"""Commands beside a migration: `init`, `try`, `compare`, `doctor`, `runs`, `audit` and `watch`."""
