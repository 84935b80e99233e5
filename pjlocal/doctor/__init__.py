"""Whether everything is as it should be: llama.cpp, the hardware, the user's files, and an answer.

A front door that shows nothing itself: `pjlocal.cli.doctor` prints the findings.
"""
