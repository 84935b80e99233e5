"""The prompt of each view: preferences, and the model's chat template.

This package knows the model's tokenizer, but not how tokens are chosen or shown.
"""
