"""Reports from result files: an HTML page and a terminal table. No model library, no live model."""

from .audit_page import audit_summary, render_audit
from .page import render_html
from .terminal import terminal_summary
from .text import strip_control

__all__ = ["audit_summary", "render_audit", "render_html", "strip_control", "terminal_summary"]
