"""What is kept: chats, their tokens, their KV caches.  Knows nothing of terminals, nor of how an answer comes about."""
