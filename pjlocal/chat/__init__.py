"""The chat in the terminal: the conversation, its commands, and the screen that shows it."""
