"""A server for OpenAI's protocol: one resident model that writes the answers of many clients side by side.

It does not use terminals.  Its dependencies are the extra ``serve``.
"""
