"""A server for OpenAI's protocol: one resident model that writes the answers of many clients side by side.

Its dependencies are in the extra ``serve``.
"""
