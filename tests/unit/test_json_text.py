"""JSON of other hands."""

from __future__ import annotations

import pytest

from passl.json_text import from_json


def test_all_that_is_no_json_is_one_kind_of_error() -> None:
    assert from_json(b'{"a": [1, null]}') == {"a": [1, None]}
    for text in ("", '{"a": ', b"\xff\xfe\xfd", "[" * 100_000):
        with pytest.raises(ValueError, match=r"."):
            from_json(text)
