"""Write PAPERS.md: every numbered item of the sources -> status, functions, tests. `--check` only compares.

Functions come from tags in public docstrings, such as `([G] Thm 6.4, corrected)`; tests are those that mention a tagged
function; items, titles and reasons come from docs/papers.yaml. So the page cannot drift from the code: a tag that names
no listed item, and an item that is neither tagged nor excused, are errors.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tags import Tag, find_tags, find_tests

ROOT = Path(__file__).parents[1]
PAGE, LIST = Path("PAPERS.md"), Path("docs/papers.yaml")
KEYS = {"title", "theory", "within", "reason", "planned", "corrected", "note", "names"}
SHOWN = 4  # functions of an item; the others are counted


@dataclass
class Papers:
    """The list, the tags found in the code, the tests found for each tagged name, and what does not fit together."""

    listed: dict[str, Any]
    tags: list[Tag]
    tests: dict[str, list[str]]
    problems: list[str] = field(default_factory=list)

    def of(self, key: tuple[str, str]) -> list[Tag]:
        """Tags of one item."""
        return [tag for tag in self.tags if tag.key == key]


def gather(root: Path = ROOT) -> Papers:
    """Read list, code and tests, and note everything that does not fit together."""
    listed = yaml.safe_load((root / LIST).read_text())
    items = listed["sources"]["R"]["items"]
    known = {name: item for item, entry in items.items() for name in (item, *entry.get("names", ()))}
    tags = find_tags(root / "src" / "aligntax", known)
    rooms = {name: "theorems" for row in listed["disagreements"] for name in row.get("code", ())}
    rooms |= {tag.name: tag.path.partition("/")[0] for tag in tags}
    papers = Papers(listed, tags, find_tests(root / "tests", rooms))
    papers.problems += (
        unknown_tags(papers)
        + untagged_code(papers)
        + [line for key, entry in entries(papers) for line in misfits(papers, key, entry)]
    )
    return papers


def entries(papers: Papers) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Every listed item with its key."""
    for source, content in papers.listed["sources"].items():
        for item, entry in content["items"].items():
            yield (source, item), entry


def unknown_tags(papers: Papers) -> list[str]:
    """Tags that name neither a listed item nor a place that may be mentioned."""
    keys = {key for key, _ in entries(papers)}
    keys |= {
        (source, place) for source, content in papers.listed["sources"].items() for place in content.get("places", ())
    }
    return [
        f"{tag.path}: {tag.name} is tagged [{tag.key[0]}] {tag.key[1]}, which {LIST} does not list"
        for tag in papers.tags
        if tag.key not in keys
    ]


def untagged_code(papers: Papers) -> list[str]:
    """Functions that a disagreement names and no tag knows."""
    known = {tag.name for tag in papers.tags}
    rows = papers.listed["disagreements"]
    return [
        f"{row['source']} ({row['says']}): {name} is no tagged function"
        for row in rows
        for name in row.get("code", ())
        if name not in known
    ]


def misfits(papers: Papers, key: tuple[str, str], entry: dict[str, Any]) -> list[str]:
    """What is wrong with one listed item."""
    tags, label = papers.of(key), f"[{key[0]}] {key[1]}"
    excuses = {"reason", "planned"} & set(entry)
    found = [
        f"{label} has the unknown key {name!r} in {LIST}; quote texts with commas" for name in sorted(set(entry) - KEYS)
    ]
    if not tags and not excuses and "within" not in entry:
        found.append(f"{label} is tagged nowhere; tag the function that computes it or give a reason in {LIST}")
    if tags and excuses:
        found.append(f"{label} is tagged in {tags[0].path} and has {excuses.pop()!r} in {LIST}; drop one")
    if "within" in entry and not papers.of((key[0], entry["within"])):
        found.append(f"{label} is within {entry['within']}, which is tagged nowhere")
    if tags and not any(tag.name in papers.tests for tag in tags):
        found.append(f"{label}: no test mentions {', '.join(sorted({tag.name for tag in tags}))}")
    said = {tag.status for tag in tags}
    if tags and ("corrected" in said) != ("corrected" in entry):
        found.append(f"{label}: 'corrected' stands only in the {'docstring' if 'corrected' in said else 'list'}")
    if "sharpened" in said and "note" not in entry:
        found.append(f"{label}: the docstring says sharpened; say how in a note in {LIST}")
    return found


def render(papers: Papers) -> str:
    """PAPERS.md as text."""
    lines = [
        "# From the papers to the code",
        "",
        "Written by `make papers` from docstring tags and [docs/papers.yaml](docs/papers.yaml); a test keeps it current. "
        "Code is under `src/aligntax/`,",
        "tests under `tests/` (the two most particular ones); *row* is the row of `aligntax theory` that checks the "
        "item against an oracle.",
        "",
        tally(papers),
    ]
    for source, content in papers.listed["sources"].items():
        lines += ["", f"## [{source}] {content['title']}", ""]
        lines += ["| item | what | status | code | tests | row |", "|---|---|---|---|---|---|"]
        lines += [line(papers, (source, item), entry) for item, entry in content["items"].items()]
    lines += ["", "## Where the sources disagree with each other or with their own formulas", ""]
    lines += ["| source | it says | what we find | code | tests | row |", "|---|---|---|---|---|---|"]
    for row in papers.listed["disagreements"]:
        names = row.get("code", [])
        code = "<br>".join(f"`{name}`" for name in names)
        cells = [row["source"], row["says"], row["finds"], code, tests_cell(papers, names), row["theory"]]
        lines.append(f"| {' | '.join(cell(text) for text in cells)} |")
    return "\n".join(lines) + "\n"


def tally(papers: Papers) -> str:
    """How many items have which status."""
    counts = Counter(status(papers, key, entry).partition(":")[0].partition(";")[0] for key, entry in entries(papers))
    return ", ".join(f"{n} {name}" for name, n in counts.most_common()) + "."


def status(papers: Papers, key: tuple[str, str], entry: dict[str, Any]) -> str:
    """Status of an item with its counterexample, note or reason."""
    said = {tag.status for tag in papers.of(key)}
    if "reason" in entry:
        return f"out of scope: {entry['reason']}"
    if "planned" in entry:
        return f"planned: {entry['planned']}"
    for word in ("corrected", "sharpened"):
        if word in said:
            return f"{word}: {entry.get('corrected') or entry.get('note')}"
    return "as stated" + (f"; here: {entry['note']}" if "note" in entry else "")


def line(papers: Papers, key: tuple[str, str], entry: dict[str, Any]) -> str:
    """One row of a source's table; an item within another shows that one's code."""
    what, row, tags = entry["title"], entry.get("theory", ""), papers.of(key)
    if not tags and "within" in entry:
        tags = papers.of((key[0], entry["within"]))
        what += f" (see {entry['within']})"
        row = papers.listed["sources"][key[0]]["items"][entry["within"]].get("theory", "")
    places = sorted({(tag.path, tag.name) for tag in tags})
    more = [f"+{len(places) - SHOWN}"] if len(places) > SHOWN else []
    code = "<br>".join([f"{path} `{name}`" for path, name in places[:SHOWN]] + more)
    cells = [key[1], what, status(papers, key, entry), code, tests_cell(papers, [name for _, name in places]), row]
    return f"| {' | '.join(cell(text) for text in cells)} |"


def tests_cell(papers: Papers, names: list[str]) -> str:
    """Two tests, the most particular ones, every name heard before any speaks twice. No count: it would change too often."""
    queue = [test for rank in range(2) for name in names for test in papers.tests.get(name, [])[rank : rank + 1]]
    return "<br>".join(list(dict.fromkeys(queue))[:2])


def cell(text: str) -> str:
    """Text that cannot break a Markdown table."""
    return str(text).replace("|", "\\|")


def main(words: list[str] | None = None, root: Path = ROOT) -> int:
    """Write PAPERS.md, or compare with `--check`; 1 where anything does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where PAPERS.md is not current")
    check = parser.parse_args(words).check
    papers = gather(root)
    text, page = render(papers), root / PAGE
    problems = list(papers.problems)
    if not check:
        page.write_text(text)
    elif not page.exists() or page.read_text() != text:
        problems.append(f"{PAGE} is not current: run `make papers`")
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
