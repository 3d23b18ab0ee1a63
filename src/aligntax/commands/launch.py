"""Where this process stands among those that a launcher (`torchrun`, `accelerate launch`) started."""

import os


def processes() -> int:
    """Processes that train together, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Is this the process that writes and speaks?"""
    return int(os.environ.get("RANK", "0")) == 0
