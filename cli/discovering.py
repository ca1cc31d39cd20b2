"""--mdns: whether a process announces itself on the LAN and listens there."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import click
import psutil


def mdns_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--mdns and --no-mdns"""
    return click.option(
        "--mdns/--no-mdns",
        default=None,
        help="Find peers on the LAN by mDNS (default: when --listen names private addresses alone, not loopback).",
    )(command)


def wants_lan(host: str, choice: bool | None) -> bool:
    """What holds for who listens at `host`: the choice, else whether it is seen on a LAN and from nowhere else."""
    if choice is not None:
        return choice
    family = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}.get(host)
    interfaces = psutil.net_if_addrs().values() if family else ()
    hosts = [one.address for own in interfaces for one in own if one.family == family] if family else [host]
    seen = [_ip(one) for one in hosts]
    far = [ip for ip in seen if ip is not None and not (ip.is_loopback or ip.is_link_local)]
    return bool(far) and None not in seen and all(ip.is_private for ip in far)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
