"""Move a live vector collection from one embedding model to another, safely."""

__version__ = "0.1.0"
