"""Whether a package can be used."""

from __future__ import annotations

import sys

from passl.installed import is_installed


def test_a_folder_in_the_current_one_is_no_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "left_by_a_run").mkdir()
    __import__("left_by_a_run")  # Python takes it for one
    monkeypatch.delitem(sys.modules, "left_by_a_run")
    assert not is_installed("left_by_a_run")
    (tmp_path / "left_by_a_run" / "__init__.py").touch()
    assert is_installed("left_by_a_run")
    assert not is_installed("there_is_no_such_package")
    assert is_installed("numpy")
