"""The cost of two preferences: judge mode against all alternatives.

`pjlocal.cli.bench` prints the report.
"""
