"""Plan, export, embed, load: what happens before the verdict, in the session of a command."""
