"""`aligntax models`: the embedded models, and fetching one before it is needed."""

from dataclasses import dataclass
from typing import Literal

import tyro

from ..errors import AligntaxError
from ..models import EMBEDDED, fetch, is_cached
from .ending import say_written


@dataclass(frozen=True)
class ModelsCommand:
    """List the embedded models, or fetch one into the user cache."""

    action: tyro.conf.Positional[Literal["list", "fetch"]]
    """list or fetch."""
    name: tyro.conf.Positional[str] = ""
    """Which model to fetch."""

    def execute(self) -> None:
        """List or fetch. Raises AligntaxError for a name that is not embedded."""
        if self.action == "fetch":
            if self.name not in EMBEDDED:
                raise AligntaxError(f"no embedded model {self.name!r}; there are {', '.join(EMBEDDED)}")
            print(fetch(self.name))
            say_written(following=("aligntax", "survey", self.name, "--size", "demo"))
            return
        for name, entry in EMBEDDED.items():
            print(f"{name}\t{entry.licence}\t{'cached' if is_cached(name) else 'not fetched yet'}")
        say_written(following=("aligntax", "models", "fetch", next(iter(EMBEDDED))))
