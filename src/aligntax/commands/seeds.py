"""The one setting that every command which draws has, checked in one place before any of them begins."""

from typing import Any

from ..errors import AligntaxError

LARGEST_SEED = 2**32 - 1
"""What numpy's older generator takes, which trainers seed as well."""


def check_seed(command: Any) -> None:
    """Raises AligntaxError for a command whose seed no generator takes: below 0 or above LARGEST_SEED."""
    seed = getattr(command, "seed", 0)
    if not 0 <= seed <= LARGEST_SEED:
        raise AligntaxError(f"--seed {seed}: give a whole number from 0 to {LARGEST_SEED}")
