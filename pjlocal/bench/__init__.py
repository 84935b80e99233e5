"""What two preferences cost: judge mode against everything that it could be compared with.

A front door that shows nothing itself: `pjlocal.cli.bench` prints the report.
"""
