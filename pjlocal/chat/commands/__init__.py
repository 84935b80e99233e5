"""The commands of a chat: a module a subject, all in `table`.  Each is small: the conversation does the work."""
