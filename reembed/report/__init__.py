"""Plans, verdicts and states as something to read."""
