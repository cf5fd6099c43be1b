"""What commands return, and the report: plans, verdicts and states as something to read."""
