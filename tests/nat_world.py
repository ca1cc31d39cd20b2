"""Small internets out of network namespaces: public hosts on one bridge, and homes behind routers that really
translate.

Needs CAP_NET_ADMIN, iproute2 and nftables. Where one of them is missing, the tests that use it are skipped and say
which.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

PEER = Path(__file__).parent / "network" / "nat_peer.py"
ROUTER = """
table ip nat {{
  chain postrouting {{ type nat hook postrouting priority srcnat; oifname "wan" masquerade {mapping} ; }}
}}
table ip filter {{
  chain input {{ type filter hook input priority filter; policy accept;
    iifname "wan" ct state established,related accept ; iifname "wan" drop ; }}
  chain forward {{ type filter hook forward priority filter; policy accept;
    iifname "wan" ct state established,related accept ; iifname "wan" drop ; }}
}}
"""
"""What a home router does: everybody behind it shares its address, and nobody outside may speak first."""


def why_not() -> str:
    """Why no namespaces can be made here; empty when they can."""
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing:
        return f"no {' and no '.join(missing)} here: apt install iproute2 nftables"
    name = f"cyx{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip() or made.stdout.strip()}"
    try:
        rules = subprocess.run(
            ["ip", "netns", "exec", name, "nft", "-f", "-"],
            input=ROUTER.format(mapping=""),
            capture_output=True,
            text=True,
        )
        return f"the kernel translates no addresses here: {rules.stderr.strip()[:200]}" if rules.returncode else ""
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


class NatWorld:
    """Namespaces that share a prefix, so that `close` finds all of them."""

    def __init__(self) -> None:
        self._prefix, self._names, self._hosts = f"cyx{os.getpid()}", [], 0
        self._make("net")
        self._in("net", "ip link add hub type bridge")
        self._in("net", "ip link set hub up")

    def public(self, name: str, address: str) -> None:
        """A host of the internet: 11.0.0.0/24."""
        self._make(name)
        self._plug(name, "eth0", address)

    def home(self, name: str, outside: str, network: str, *, mapping: str = "") -> None:
        """A host NETWORK.2 behind a router NETWORK.1 that the world sees at `outside`. `mapping` is nft's word for how
        it chooses ports: none keeps them, 'fully-random' takes a new one for every connection."""
        router = f"{name}r"
        self._make(router)
        self._make(name)
        self._plug(router, "wan", outside)
        self._in(router, f"ip link add lan type veth peer name eth0 netns {self._prefix}{name}")
        for where, link, address in ((router, "lan", f"{network}.1/24"), (name, "eth0", f"{network}.2/24")):
            self._in(where, f"ip addr add {address} dev {link}")
            self._in(where, f"ip link set {link} up")
        self._in(name, f"ip route add default via {network}.1")
        # The internet swallows what is sent to private addresses: nobody says that there is nobody.
        self._in(router, "ip route add blackhole default")
        self._in(router, "sysctl -qw net.ipv4.ip_forward=1")
        subprocess.run(
            ["ip", "netns", "exec", self._prefix + router, "nft", "-f", "-"],
            input=ROUTER.format(mapping=mapping),
            text=True,
            check=True,
        )

    def forward(self, name: str, port: int, network: str) -> None:
        """Have a home's router forward a port, as its owner may tell it to."""
        router = f"{name}r"
        self._in(router, "nft add chain ip nat pre { type nat hook prerouting priority dstnat ; }")
        self._in(router, f"nft add rule ip nat pre iifname wan tcp dport {port} dnat to {network}.2")
        self._in(router, f"nft insert rule ip filter forward iifname wan tcp dport {port} accept")

    def close(self) -> None:
        """Take all namespaces away."""
        for name in self._names:
            subprocess.run(["ip", "netns", "del", self._prefix + name], check=False)

    def command(self, name: str, *words: str) -> list[str]:
        """A command line that runs in a namespace."""
        return ["ip", "netns", "exec", self._prefix + name, *words]

    def _make(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", self._prefix + name], check=True)
        self._names.append(name)
        self._in(name, "ip link set lo up")

    def _plug(self, name: str, link: str, address: str) -> None:
        self._hosts += 1
        port = f"p{self._hosts}"
        self._in("net", f"ip link add {port} type veth peer name {link} netns {self._prefix}{name}")
        self._in("net", f"ip link set {port} master hub up")
        self._in(name, f"ip addr add {address}/24 dev {link}")
        self._in(name, f"ip link set {link} up")

    def _in(self, name: str, line: str) -> None:
        subprocess.run(self.command(name, *line.split()), check=True)


class NatPeer:
    """A transport in a process of its own, in a namespace: `await peer("name", ...)` calls what nat_peer.py offers."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._buffer = b""

    async def __call__(self, name: str, *arguments: Any) -> Any:
        await self._stdin.send_all(json.dumps([name, *arguments]).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        with trio.fail_after(60):
            while b"\n" not in self._buffer:
                more = await self._stdout.receive_some(65_536)
                assert more, "the peer has ended"
                self._buffer += more
        line, self._buffer = self._buffer.split(b"\n", 1)
        found = json.loads(line)
        assert "error" not in found, found["error"]
        return found["value"]

    async def until_links(self, number: int, wanted: list[str], within_s: float = 40) -> None:
        """Wait until the connections with a peer are of these kinds."""
        found = None
        with trio.move_on_after(within_s):
            while (found := await self("links", number)) != wanted:  # noqa: ASYNC110 -- another process
                await trio.sleep(0.1)
            return
        raise AssertionError(f"the connections are {found}")

    async def until(self, name: str, wanted: Any, within_s: float = 40) -> Any:
        """Ask until the answer is `wanted`, or satisfies it."""
        found = None
        with trio.move_on_after(within_s):
            while True:
                found = await self(name)
                if wanted(found) if callable(wanted) else found == wanted:
                    return found
                await trio.sleep(0.1)
        raise AssertionError(f"{name} is {found}")


@asynccontextmanager
async def peers(world: NatWorld, **made: tuple[str, str, int, bool]) -> AsyncIterator[dict[str, NatPeer]]:
    """Peers by name: (namespace, address to listen at, number of the key, whether it relays)."""
    async with trio.open_nursery() as nursery:
        found = {}
        processes = []
        for name, (namespace, host, number, relay) in made.items():
            words = [sys.executable, str(PEER), host, str(number), *(["relay"] if relay else [])]
            run = partial(trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
            process = await nursery.start(run, world.command(namespace, *words))
            processes.append(process)
            found[name] = NatPeer(process)
        try:
            for peer in found.values():
                await peer.answer()
            yield found
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
            nursery.cancel_scope.cancel()
