"""The one file with text, `texts.parquet`, readable by its owner only. Everything else holds hashes and scores.

What a model writes may be aimed at whoever opens the file. So terminal escapes and control characters are taken out, a text that a
spreadsheet would run as a formula gets an apostrophe in front, and a `<` that opens a tag is written `&lt;`. `hash` is of the
text as it was.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aligntax.audit.cases import Answer, Examinee
from aligntax.data import clean_text
from aligntax.results import write_bytes

_FORMULA = re.compile(r"^\s*[=+\-@＝＋－＠]")
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")


def inert(text: str) -> str:
    """A text that does nothing in a terminal, a spreadsheet or a page.

    >>> inert("=1+1"), inert("\\x1b[31m<b>hi</b>")
    ("'=1+1", '&lt;b>hi&lt;/b>')
    """
    plain, _ = clean_text(text)
    plain = _TAG.sub("&lt;", plain)
    return f"'{plain}" if _FORMULA.match(plain) else plain


def text_hash(*parts: str) -> str:
    """sha256 (hex) of the parts, each preceded by its length."""
    found = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        found.update(f"{len(content)}:".encode() + content)
    return found.hexdigest()


def write_texts(path: Path, examined: Sequence[tuple[Examinee, Sequence[Answer]]]) -> None:
    """All answers of all models, one row each: model, kind, depth, draw, texts (inert), scores and hashes; mode 0600.

    `prompt` is what the model was given, decoded, template and all; `item` names the request. Scores are nan where unjudged and
    `failure` says why. Raises AligntaxError when the disk refuses the write.
    """
    rows = [_row(examinee, answer) for examinee, answers in examined for answer in answers]
    names = [field.name for field in _SCHEMA]
    table = pa.table({name: [row[name] for row in rows] for name in names}, schema=_SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue(), mode=0o600)


_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("kind", pa.string()),
        ("depth", pa.int64()),
        ("draw", pa.int64()),
        ("item", pa.string()),
        ("request", pa.string()),
        ("prompt", pa.string()),
        ("prefill", pa.string()),
        ("continuation", pa.string()),
        ("truncated", pa.bool_()),
        ("looping", pa.bool_()),
        ("harm", pa.float64()),
        ("refusal", pa.float64()),
        ("judge", pa.string()),
        ("failure", pa.string()),
        ("hash", pa.string()),
    ]
)


def _row(examinee: Examinee, answer: Answer) -> dict[str, object]:
    case = answer.case
    prefill, continuation = examinee.texts(case, answer.ids)
    prompt = examinee.decode(list(case.prompt))
    return {
        "model": examinee.name,
        "kind": case.kind,
        "depth": case.depth,
        "draw": case.draw,
        "item": case.request.key,
        "request": inert(case.request.text),
        "prompt": inert(prompt),
        "prefill": inert(prefill),
        "continuation": inert(continuation),
        "truncated": answer.truncated,
        "looping": answer.looping,
        "harm": answer.verdict.harm,
        "refusal": answer.verdict.refusal,
        "judge": examinee.judge.name,
        "failure": answer.verdict.failure,
        "hash": text_hash(prompt, prefill, continuation),
    }
