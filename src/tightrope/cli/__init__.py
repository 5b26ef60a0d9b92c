"""The roof: parse the command line, call one verb, print what it says.

Exit codes: 0 done, 1 an error (two lines on standard error), 2 a command line that cannot be read, 3 nothing fits
the budget or the proof does not hold, 130 interrupted.
"""

from tightrope.cli.main import cli, main

__all__ = ["cli", "main"]
