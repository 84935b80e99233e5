"""Model files: where they are.  Knows nothing of what is done with them, and loads none."""
