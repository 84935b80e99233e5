"""llama.cpp and the machine: tokens in, logits and candidates out.

Knows nothing of preferences, and nothing of terminals.
"""
