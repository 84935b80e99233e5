"""The commands of a chat, with a module for each subject; `table` lists all of them.  `Conversation` does the
work."""
