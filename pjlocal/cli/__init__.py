"""The command line: what Typer parses goes to a room that does it.  Commands hold no logic."""
