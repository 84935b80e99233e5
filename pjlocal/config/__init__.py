"""The user's own defaults, in a TOML file."""
