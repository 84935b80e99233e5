"""Measure the cost of two preferences: judge mode compared with all alternatives.

`pjlocal.cli.bench` prints the report.
"""
