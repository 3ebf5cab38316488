"""Tables of ``benchmarks/README.md``, each between two marks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["put_table"]


def put_table(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks of the table ``name``."""
    begin, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
    before, begins, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise SystemExit(f"{path} has no lines '{begin}' and '{end}' for the table")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
