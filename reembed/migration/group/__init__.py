"""Several collections that move together: one plan, one verdict, one swap, one way back."""
