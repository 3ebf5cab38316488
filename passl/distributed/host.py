"""What a process knows of the machine it runs on, and what of it makes a job of many nodes hang.

Plain facts for the preflight: host, addresses, interfaces, versions, and the settings of the
environment that are known to keep processes from finding each other.  Nothing here imports Paddle
or talks to another process.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import ipaddress
import platform
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import passl

__all__ = [
    "host_warnings",
    "installed_versions",
    "interface_addresses",
    "resolved_hostname",
    "source_hash",
]

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface


def interface_addresses() -> dict[str, str]:
    """IPv4 address by interface, the loopback included; empty where the system does not say."""
    try:
        import fcntl
    except ImportError:  # Windows
        return {}
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name[:15].encode())
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an IPv4 address, or another system
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def resolved_hostname() -> tuple[str, Optional[str]]:
    """This machine's name, and the IPv4 address it resolves to, None if it does not."""
    name = socket.gethostname()
    try:
        return name, socket.gethostbyname(name)
    except OSError:
        return name, None


def installed_versions() -> dict[str, str]:
    """Versions of Python, PASSL and Paddle; Paddle's with ``cpu`` or its CUDA version.

    Nothing is imported.  A distribution that is not installed reads ``none``.
    """
    paddle = "none"
    for name in ("paddlepaddle", "paddlepaddle-gpu", "paddlepaddle-xpu"):
        try:
            paddle = importlib.metadata.version(name)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "passl": passl.__version__,
        "paddle": f"{paddle} ({_paddle_build()})",
    }


def source_hash() -> str:
    """Twelve digits of the SHA-256 of PASSL's own source: equal where the code is equal."""
    digest = hashlib.sha256()
    root = Path(passl.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def host_warnings(
    environ: Mapping[str, str],
    *,
    num_nodes: int,
    hostname: tuple[str, Optional[str]],
    interfaces: Mapping[str, str],
    peers: Sequence[str] = (),
    paddle_is_cpu_only: bool,
) -> list[str]:
    """What in this machine's settings is known to keep ranks apart, a sentence each.

    Args:
        environ: the environment of a process of the job.
        num_nodes: nodes of the job.
        hostname: from :func:`resolved_hostname`.
        interfaces: from :func:`interface_addresses`.
        peers: addresses of the job's processes and its master.
        paddle_is_cpu_only: the installed Paddle knows no GPU.
    """
    warnings = [*_proxies(environ, peers), *_devices(environ, paddle_is_cpu_only)]
    pinned = environ.get("POD_IP") or environ.get("GLOO_SOCKET_IFNAME")
    name, address = hostname
    if num_nodes > 1 and not pinned:
        if address is None:
            warnings.append(
                f"the host name {name} does not resolve, so the other nodes are told no address; "
                "add it to /etc/hosts, or set POD_IP and GLOO_SOCKET_IFNAME"
            )
        elif ipaddress.ip_address(address).is_loopback:
            warnings.append(
                f"the host name {name} resolves to {address}, the loopback, which other nodes "
                "cannot reach; give it the address of the network in /etc/hosts, or set POD_IP to "
                "that address and GLOO_SOCKET_IFNAME to its interface"
            )
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        warnings += _interface(variable, environ.get(variable, ""), interfaces, num_nodes)
    return warnings


def _proxies(environ: Mapping[str, str], peers: Sequence[str]) -> list[str]:
    # Paddle 3 renames the first two for its workers; the launcher itself still reads the others.
    used = [name for name in _PROXIES if environ.get(name) or environ.get(f"{name}_original")]
    if not used:
        return []
    listed = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")
    exceptions = [entry.strip().lstrip(".") for entry in listed if entry.strip()]
    hosts = sorted({peer.rpartition(":")[0] or peer for peer in peers})
    through = [
        host
        for host in hosts
        if not any(e == "*" or host == e or host.endswith(f".{e}") for e in exceptions)
    ]
    if hosts and not through:
        return []
    return [
        f"{', '.join(used)} is set: the launcher looks for its peers over HTTP and would ask the "
        f"proxy for them; unset it, or list {', '.join(through) or 'the nodes'} in no_proxy"
    ]


def _devices(environ: Mapping[str, str], paddle_is_cpu_only: bool) -> list[str]:
    devices = environ.get("CUDA_VISIBLE_DEVICES")
    if devices is None:
        return []
    if not devices.strip():
        return [
            "CUDA_VISIBLE_DEVICES is set and empty, which makes Paddle's launcher fail; unset it, "
            "or list the devices, such as 0,1"
        ]
    if paddle_is_cpu_only:
        return [
            f"CUDA_VISIBLE_DEVICES={devices} is set, but the installed Paddle is built for CPUs: "
            "its launcher takes this for a GPU machine and the processes never form a group; unset "
            "it and give --nproc_per_node, or install a GPU build"
        ]
    names = [device.strip() for device in devices.split(",")]
    if len(set(names)) < len(names):
        return [f"CUDA_VISIBLE_DEVICES={devices} lists a device twice"]
    return []


def _interface(
    variable: str, value: str, interfaces: Mapping[str, str], num_nodes: int
) -> list[str]:
    # NCCL also takes prefixes, lists, and a leading ^ or =; only a plain name can be checked.
    if not re.fullmatch(r"[\w.-]+", value) or not interfaces:
        return []
    exact = variable == "GLOO_SOCKET_IFNAME"
    matching = [
        name for name in interfaces if name == value or (not exact and name.startswith(value))
    ]
    if not matching:
        known = ", ".join(f"{name} ({address})" for name, address in interfaces.items())
        return [
            f"{variable}={value}: no interface here with that name has an IPv4 address; there is "
            f"{known}"
        ]
    if num_nodes > 1 and all(ipaddress.ip_address(interfaces[n]).is_loopback for n in matching):
        return [f"{variable}={value} is the loopback, which other nodes cannot reach"]
    return []


def _paddle_build() -> str:
    """``cpu``, or ``cuda 11.8``; read from Paddle's version file without importing it."""
    found = importlib.util.find_spec("paddle")
    if found is None or found.origin is None:
        return "not installed"
    try:
        text = (Path(found.origin).parent / "version" / "__init__.py").read_text(encoding="utf-8")
    except OSError:
        return "unknown build"
    cuda = re.search(r"^cuda_version\s*=\s*'([^']*)'", text, re.MULTILINE)
    if cuda is None:
        return "unknown build"
    return "cpu" if cuda[1] in ("False", "") else f"cuda {cuda[1]}"
