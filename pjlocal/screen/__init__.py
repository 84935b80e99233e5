"""Rich and the terminal: display of token events.  Never imports llama.cpp; control codes in texts have no effect."""
