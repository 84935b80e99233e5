"""Saved chats: their turns, tokens and KV caches.  Independent of terminals and of the engine."""
