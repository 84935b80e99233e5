"""Saved chats: their turns, tokens and KV caches."""
