"""What the preflight says about a machine's settings."""

from __future__ import annotations

import socket

import pytest

from passl.distributed.host import (
    host_warnings,
    installed_versions,
    interface_addresses,
    source_hash,
)
from passl.distributed.preflight_report import PreflightReport, RankInfo


def warnings_for(environ, *, nodes=2, address="10.0.0.2", cpu_only=True):
    return host_warnings(
        environ,
        num_nodes=nodes,
        hostname=("node2", address),
        interfaces={"lo": "127.0.0.1", "eth0": "10.0.0.2"},
        peers=["10.0.0.1:6070", "10.0.0.2:6070"],
        paddle_is_cpu_only=cpu_only,
    )


def test_a_healthy_machine_gives_no_warning():
    assert warnings_for({"GLOO_SOCKET_IFNAME": "eth0"}) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HTTP_PROXY": "http://proxy:3128"}, "HTTP_PROXY is set"),
        ({"http_proxy_original": "http://proxy:3128"}, "http_proxy is set"),
        ({"ALL_PROXY": "x", "no_proxy": "10.0.0.1"}, "list 10.0.0.2 in no_proxy"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "set and empty"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "built for CPUs"),
        ({"GLOO_SOCKET_IFNAME": "eth9"}, "no interface here with that name"),
        ({"GLOO_SOCKET_IFNAME": "lo"}, "is the loopback"),
    ],
)
def test_a_known_trap_is_warned_of(environ, expected):
    (warning,) = warnings_for(environ)
    assert expected in warning


def test_a_proxy_that_the_nodes_are_exempt_from_is_no_trap():
    assert warnings_for({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "10.0.0.1,10.0.0.2"}) == []


def test_a_device_listed_twice_is_warned_of():
    (warning,) = warnings_for({"CUDA_VISIBLE_DEVICES": "0,1,0"}, cpu_only=False)
    assert "twice" in warning


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1"])
def test_a_host_name_of_the_loopback_matters_on_several_nodes_only(address):
    (warning,) = warnings_for({}, address=address)
    assert f"node2 resolves to {address}" in warning
    assert warnings_for({}, address=address, nodes=1) == []
    assert warnings_for({"POD_IP": "10.0.0.2"}, address=address) == []


def test_the_loopback_is_among_the_interfaces():
    found = interface_addresses()
    assert "127.0.0.1" in found.values()
    assert set(found) <= {name for _, name in socket.if_nameindex()}


def test_versions_are_read_without_importing_paddle():
    import paddle

    versions = installed_versions()
    assert versions["paddle"].startswith(paddle.__version__)
    assert versions["paddle"].endswith("(cpu)") is not paddle.is_compiled_with_cuda()
    assert len(source_hash()) == 12


def rank(number, **changes):
    values = {
        "rank": number, "host": "n (10.0.0.1)", "endpoint": "", "device": "cpu", "interfaces": {},
        "versions": {"passl": "3", "paddle": "3.3.1", "python": "3.11"},
        "source": "a", "config": "c", "warnings": [],
    }  # fmt: skip
    return RankInfo(**{**values, **changes})


def test_what_makes_ranks_compute_different_things_is_an_error():
    old = {"passl": "3", "paddle": "2.6.2", "python": "3.9"}
    report = PreflightReport([rank(0), rank(1), rank(2, versions=old), rank(3, source="b")], {})
    assert report.errors == [
        "PASSL's source is not the same everywhere: a on ranks 0-2; b on rank 3",
        "the version of Paddle is not the same everywhere: 3.3.1 on ranks 0-1, 3; 2.6.2 on rank 2",
    ]
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("the version of Python")


def test_two_ranks_on_one_device_are_warned_of():
    report = PreflightReport([rank(0, device="gpu:0"), rank(1, device="gpu:0")], {})
    assert report.warnings == ["ranks 0-1 share gpu:0 of n (10.0.0.1)"]


def test_the_same_warning_of_many_ranks_is_one_line():
    report = PreflightReport([rank(n, warnings=["too hot"]) for n in range(3)], {})
    assert report.warnings == ["ranks 0-2: too hot"]
