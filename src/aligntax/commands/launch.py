"""Where this process stands among those that a launcher (`torchrun`, `accelerate launch`) started."""

import os


def processes() -> int:
    """Processes that train together, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave() -> None:
    """Wait for the others and dissolve the group: one that ends within it may count as failed, and the launcher stops the rest."""
    if processes() == 1:
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def first_process() -> bool:
    """Is this the process that writes and speaks?"""
    return int(os.environ.get("RANK", "0")) == 0
