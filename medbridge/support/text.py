"""What the project prints: tables of text, templates, and "did you mean"."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Template
from tabulate import tabulate


def text_table(rows: Sequence[Sequence[str]], align: Sequence[str] | None = None) -> str:
    """Rows of cells as lines: columns to the left, two blanks apart; or 'left' or 'right' by ``align``, below a header row."""
    text = tabulate(rows, "firstrow" if align else (), "plain", disable_numparse=True, colalign=align)
    return "\n".join(map(str.rstrip, text.splitlines()))


def fill_template(module: str, name: str, **values: object) -> str:
    """The Jinja template ``name`` beside the file of a module, with these values; a line of blocks alone is no line."""
    text = Path(module).with_name(name).read_text(encoding="utf-8")
    return Template(text, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).render(values)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'x'? "`` for the known name nearest to ``name``, whatever the case; empty where none is near."""
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return f"did you mean {by_lower[near[0]]!r}? " if near else ""
