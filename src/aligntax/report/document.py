"""The frame of every report: one template, one inline style sheet allowed by its hash, nothing else."""

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .text import exact, interval, number, percent
from .verdict import held


def document(template: str, **values: Any) -> str:
    """`template` filled in, as one HTML document (UTF-8 text) without script or request. Every plain string is escaped."""
    style = resources.files(__package__).joinpath("survey.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("aligntax", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(number=number, exact=exact, interval=interval, percent=percent, held=held)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template(template).render(style=Markup(style), digest=digest, **values)
