"""Conversations: what is said (`conversation`), kept (`recorder`), asked for by command (`commands`) and shown."""
