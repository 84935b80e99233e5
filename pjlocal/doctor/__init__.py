"""Checks of the installation: llama.cpp, the hardware, the user's files, and an answer.

`pjlocal.cli.doctor` prints the findings.
"""
