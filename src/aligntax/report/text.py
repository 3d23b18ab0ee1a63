"""Text that is safe to show: control characters out, numbers with sensible digits, undefined as an en dash.

`None` and non-finite numbers are undefined and never printed as 0. Signs use the true minus (U+2212).
"""

import dataclasses
import math
import re
import unicodedata
from typing import Any

from markupsafe import Markup

from ..results import RefusalToken

MINUS, DASH, NARROW = "−", "–", "\u202f"
UNDEFINED = Markup('<abbr class="undef" title="undefined">–</abbr>')

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and their kin
    r"|\x1b[ -/]*[0-~]?"
)
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def strip_control(text: str) -> str:
    """`text` without terminal escapes, control, bidirectional, zero-width and surrogate characters.

    Tab, line feed and carriage return become one space each; everything else stays. Safe for a terminal; HTML still
    needs escaping.

    >>> strip_control("a\\x1b[31mb\\tc\\u202e")
    'ab c'
    """
    kept = _ESCAPES.sub("", text)
    return "".join(" " if c in "\t\n\r" else c for c in kept if c in "\t\n\r" or unicodedata.category(c) not in _HIDDEN)


def clean(value: Any) -> Any:
    """A copy of a result with every string stripped and every non-finite number made None, at any depth.

    The text of a refusal token is made visible first: a line break may be the whole token.
    """
    if isinstance(value, RefusalToken):
        value = dataclasses.replace(value, text=show_token(value.text))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: clean(getattr(value, name)) for name in names})
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, str):
        return strip_control(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show_token(text: str) -> str:
    """A token as one visible word: spaces and line breaks as signs, other hidden characters dropped."""
    marked = text.replace("\r", "␍").replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    return strip_control(marked) or "(invisible)"


def _decimals(spread: float, digits: int) -> int:
    return min(6, max(0, digits - 1 - math.floor(math.log10(spread)))) if spread > 0 else digits


def _fixed(value: float, decimals: int, plus: bool = False) -> str:
    text = f"{abs(value):,.{decimals}f}".replace(",", NARROW)
    zero = not any(c in "123456789" for c in text)
    sign = "" if zero else MINUS if value < 0 else "+" if plus else ""
    return sign + text


def number(value: float | None, digits: int = 2, plus: bool = False) -> str:
    """`value` with `digits` significant digits, without exponent between 1e-4 and 1e6; a count (an int) in full.

    Undefined is an en dash.

    >>> number(-0.1234), number(None), number(412345.0), number(0.0)
    ('−0.12', '–', '412\\u202f345', '0')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    if isinstance(value, int):
        return _fixed(value, 0, plus)
    size = abs(value)
    if not 1e-4 <= size < 1e6:
        head, exponent = f"{size:.{digits - 1}e}".split("e")
        sign = MINUS if value < 0 else "+" if plus else ""
        return f"{sign}{head}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return _fixed(value, _decimals(size, digits), plus)


def exact(value: float | None) -> str:
    """A number somebody chose (a budget, a limit): up to four digits, no trailing zeros."""
    shown = number(value, 4)
    return shown.rstrip("0").rstrip(".") if "." in shown and "×" not in shown else shown


def percent(value: float | None) -> str:
    """A fraction as whole percent (one decimal below 10%); an en dash when undefined."""
    if value is None or not math.isfinite(value):
        return DASH
    shown = 100 * value
    return f"{_fixed(shown, 0 if abs(shown) >= 10 or shown == 0 else 1)}%"


def p_text(value: float | None) -> str:
    """A p-value; below .001 only said to be so."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def interval(value: float | None, low: float | None, high: float | None, plus: bool = False) -> str:
    """`value [low, high]` with the decimals that the width of the interval warrants."""
    if value is None or low is None or high is None:
        span = DASH if low is None or high is None else f"{number(low, 2, plus)}, {number(high, 2, plus)}"
        return DASH if value is None and span == DASH else f"{number(value, 2, plus)} [{span}]"
    if max(abs(value), abs(low), abs(high)) >= 1e6 or 0 < max(abs(low), abs(high)) < 1e-4:
        return f"{number(value, 2, plus)} [{number(low, 2, plus)}, {number(high, 2, plus)}]"
    places = _decimals(abs(high - low) / 5 or abs(value) / 5 or 1.0, 1)
    return f"{_fixed(value, places, plus)} [{_fixed(low, places, plus)}, {_fixed(high, places, plus)}]"


def cell(text: str) -> str | Markup:
    """A table cell: a lone en dash gets the explanation *undefined*, everything else stays plain text."""
    return UNDEFINED if text == DASH else text
