"""Model files: where they are, what they say of themselves, how they are had and what they need.

Knows nothing of what is done with them, and loads none.
"""
