"""Applications whose settings move together with their collection."""
