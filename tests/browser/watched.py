"""A page that notes every request and every complaint, and what an accessibility checker finds on it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


@dataclass
class Watched:
    """A page at `path`, `width` CSS pixels wide."""

    page: Any
    path: Path
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def sideways(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def violations(self, part: str | None = None) -> list[str]:
        """Broken accessibility rules, in a part of the page or all of it, one line each with the first elements that break them."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, context=part, options={"runOnly": list(RULES)}).response["violations"]
        return [f"{v['id']} ({v['impact']}): {[n['target'] for n in v['nodes']][:3]}" for v in found]


def opened(browser: Any, path: Path, width: int = 1440, scheme: str = "light") -> Watched:
    """Open a file; everything that the page asks for or complains of is noted."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    watched = Watched(page, path)
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("console", lambda message: watched.complaints.append(message.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.goto(path.as_uri())
    return watched
