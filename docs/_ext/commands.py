"""`{commands}`: every command with its examples and options, read from the dataclasses that the command line is made of."""

from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from aligntax.commands.registry import COMMANDS, Entry
from aligntax.commands.short_help import options_of


def section(name: str, entry: Entry) -> nodes.section:
    """One command: what it does, examples, a definition for every option."""
    about, options = options_of(entry)
    part = nodes.section("", nodes.title("", f"aligntax {name}"), ids=[f"command-{name}"], names=[f"aligntax {name}"])
    part += _paragraph(about)
    examples = "\n".join(f"$ {example}" for example in entry.examples)
    part += nodes.literal_block(examples, examples, language="console")
    listed = nodes.definition_list()
    for option in options:
        term = nodes.term("", "", nodes.literal("", option.words))
        listed += nodes.definition_list_item("", term, nodes.definition("", _paragraph(option.text)))
    part += listed
    return part


def _paragraph(text: str) -> nodes.paragraph:
    pieces = text.split("`")
    parts = [nodes.literal("", p) if k % 2 else nodes.Text(p) for k, p in enumerate(pieces)]
    return nodes.paragraph("", "", *parts)


class Commands(SphinxDirective):
    """All commands in the order of the registry."""

    def run(self) -> list[nodes.Node]:
        """One section each."""
        return [section(name, entry) for name, entry in COMMANDS.items()]


def setup(app: Any) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
