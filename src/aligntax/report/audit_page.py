"""One self-contained HTML page of an audit, and its summary in a terminal; the first screen answers four questions."""

from rich.console import Console

from ..results import Audit
from . import audit_figures as figures
from . import audit_state_figures as states
from .audit_tables import tables
from .audit_verdict import forecast_words, key_figures, shift_words, verdict, whom_words
from .document import document
from .terminal import say
from .text import clean


def render_audit(audit: Audit) -> str:
    """The report as one HTML document (UTF-8): no script, no request, everything escaped."""
    audit = clean(audit)
    return document(
        "audit.html.j2",
        s=audit,
        verdict=verdict(audit),
        keys=key_figures(audit),
        fig={
            "kl": figures.kl(audit.kl, audit.kl_forced),
            "recovery": figures.recovery(audit.recovery),
            "attack": figures.attack(audit.attack),
            "bill": figures.bill(audit),
            "states": states.difference(audit.representation),
            "shift": states.shift(audit.shift),
        },
        tab=tables(audit),
        forecast=forecast_words(audit),
        ranked=shift_words(audit),
        whom=whom_words(audit),
    )


def audit_summary(audit: Audit, console: Console | None = None) -> None:
    """Print the verdict, the key figures and the warnings; strings are stripped and never read as markup."""
    audit, console = clean(audit), console or Console()
    title = f"{audit.aligned} against {audit.base}, {audit.size} audit"
    say(console, title, verdict(audit), key_figures(audit), audit.warnings)
