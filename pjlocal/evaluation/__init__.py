"""Evaluate how well answers follow preferences: several systems answer a set of prompts, and are scored and compared
with intervals and tests."""
