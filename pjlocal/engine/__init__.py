"""llama.cpp and the machine: tokens in, logits and candidates out.

It knows no preferences and no terminals.
"""
