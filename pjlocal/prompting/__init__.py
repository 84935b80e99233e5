"""What a view is told: preferences, and the prompt that the model's chat template makes of them.

Knows the model's tokenizer; nothing of how tokens are chosen or shown.
"""
