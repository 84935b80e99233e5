"""One resident model behind OpenAI's protocol: many programs' requests, written side by side.

Knows nothing of terminals.  Its packages are the extra ``serve``.
"""
