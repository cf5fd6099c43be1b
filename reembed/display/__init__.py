"""Results as something to look at: HTML from values, and what a prompt or a notebook shows."""
