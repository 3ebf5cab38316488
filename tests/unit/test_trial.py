"""Trying what Paddle has before it is used."""

from __future__ import annotations

import warnings

import paddle
import pytest

from passl.trial import works_here


@pytest.fixture(autouse=True)
def _nothing_tried(monkeypatch):
    monkeypatch.setattr("passl.trial._FOUND", {})


def fails():
    raise OSError(" no such kernel ")


@pytest.mark.parametrize(
    ("trial", "reason"),
    [(lambda: "it adds 1", "it adds 1"), (fails, "it failed with OSError: no such kernel")],
)
def test_what_does_not_work_costs_one_warning_that_says_what_is_done_instead(trial, reason):
    device = paddle.device.get_device()
    told = f"^a kernel is not used on {device}: {reason}; another one is$"
    with pytest.warns(UserWarning, match=told):
        assert not works_here("a kernel", trial, "another one is")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not works_here("a kernel", trial, "another one is")


def test_each_thing_is_tried_once_on_each_device(monkeypatch):
    tried = []

    def trial() -> None:
        tried.append(paddle.device.get_device())

    for device in ("cpu", "gpu:0", "cpu", "gpu:1", "gpu:0"):
        monkeypatch.setattr(paddle.device, "get_device", lambda device=device: device)
        assert works_here("a kernel", trial, "")
    assert tried == ["cpu", "gpu:0", "gpu:1"]
    assert works_here("another kernel", trial, "")
    assert len(tried) == 4
