"""Rich and the terminal: how token events are shown.  Never imports llama.cpp; takes no orders from what it shows."""
