"""The user's own defaults: a TOML file and an editor.  Knows the settings; nothing of models or chats."""
