"""Model files: where they are, and what they say of themselves.

Knows nothing of what is done with them, and loads none.
"""
