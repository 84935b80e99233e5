"""llama.cpp and the machine: tokens in, logits and candidates out.

Nothing here depends on preferences or terminals.
"""
