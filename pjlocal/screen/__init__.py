"""Show token events with Rich on a terminal.  Nothing here imports llama.cpp, or writes control codes from texts."""
