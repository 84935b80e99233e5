"""The command line.  Typer parses the options; the other folders do the work."""
