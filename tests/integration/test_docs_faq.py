"""The messages that docs/faq.md quotes are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

# Of Paddle's launcher, and of the system.
_NOT_OURS = {"Pod failed", "bus error"}


def test_every_message_that_the_page_quotes_is_one_of_ours(repo: Path) -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (repo / "passl").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # texts that go over several lines
    quoted, missing = 0, []
    for line in (repo / "docs/faq.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") or line.startswith("| what you see"):
            continue
        for span in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
            if " " not in span or span.startswith(("-o ", "passl-")) or span in _NOT_OURS:
                continue
            quoted += 1
            parts = [part.strip() for part in re.split(r"\.\.\.|\d+", span)]
            missing += [f"{span!r}: {part!r}" for part in parts if part and part not in source]
    assert quoted >= 8
    assert not missing, "\n".join(missing)
