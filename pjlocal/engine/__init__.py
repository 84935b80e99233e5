"""llama.cpp and the machine: tokens in, logits and candidates out.

Knows nothing of preferences, and nothing of terminals.
"""

import os

# Where llama.cpp aborts, it would run a debugger whose text lands in standard output.  Read when the library is loaded.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
