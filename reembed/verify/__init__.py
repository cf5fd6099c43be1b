"""The gates, what they search, and the verdict."""
