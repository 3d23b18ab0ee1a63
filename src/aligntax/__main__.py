"""`python -m aligntax`, for launchers that start modules."""

from .cli import entry

entry()
