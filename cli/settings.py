"""Where things are on this machine, and the options that several commands share.

Precedence: the command line, then CYXNODE_* in the environment, then `config.toml` in the home directory (a table per
command, named like it), then the default.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..p2p.deny_list import DenyList
from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair, load_key, save_key
from ..protocol.units import parse_id
from .paying import paying_options

DEFAULT_RPC = "http://127.0.0.1:8899"
CHAIN_PORT = 8899
BOOTSTRAP_PORT = 4001
SEEDS_FILE = "bootstrap.addresses"
ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/[^/]+/tcp/\d{1,5}/p2p/[1-9A-HJ-NP-Za-km-z]+")

Command = Callable[..., Any]


def default_home() -> Path:
    """CYXNODE_HOME, else ~/.cyxnode"""
    given = os.environ.get("CYXNODE_HOME")
    return Path(given) if given else Path.home() / ".cyxnode"


def load_config(home: Path) -> dict[str, Any]:
    """Defaults from `config.toml`; LocalError when it is not TOML."""
    path = home / "config.toml"
    try:
        config = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LocalError(f"{path}: {error}", field="config", fix="correct it, or remove it") from None
    return config


def home_option(command: Command) -> Command:
    """--home"""
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_home,
        envvar="CYXNODE_HOME",
        show_default="~/.cyxnode",
        help="Where keys, journals and blobs are kept.",
    )(command)


def rpc_option(command: Command) -> Command:
    """--rpc, which may also be written --url"""
    return click.option(
        "--rpc", "--url", default=DEFAULT_RPC, envvar="CYXNODE_RPC", show_default=True, help="Solana RPC URL."
    )(command)


def chain_options(command: Command) -> Command:
    """--rpc, --program, and those of `paying_options`"""
    command = rpc_option(paying_options(command))
    return click.option(
        "--program", default=None, envvar="CYXNODE_PROGRAM", help="Escrow program (default: the local chain's)."
    )(command)


def program_id(text: str | None) -> bytes:
    """The escrow program: `text` in base58, or that of the local chain."""
    from ..ledger.addresses import LOCAL_PROGRAM_ID

    return LOCAL_PROGRAM_ID if text is None else parse_id(text, field="program")


def network_options(command: Command) -> Command:
    """--rpc, --program, --bootstrap"""
    return click.option(
        "--bootstrap",
        multiple=True,
        envvar="CYXNODE_BOOTSTRAP",
        help=f"Address of a bootstrap node; may be given several times (default: the lines of {SEEDS_FILE} in --home).",
    )(chain_options(command))


def deny_list_option(command: Command) -> Command:
    """--deny-list"""
    return click.option(
        "--deny-list",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        envvar="CYXNODE_DENY_LIST",
        help="File of peer ids, one a line, with whom there is no connection; read again when it changes.",
    )(command)


def deny_list_of(path: Path | None) -> DenyList | None:
    """The deny list of that option; LocalError when the file cannot be read."""
    return DenyList(path) if path is not None else None


def key_options(default_name: str) -> Callable[[Command], Command]:
    """--name and --key"""

    def decorate(command: Command) -> Command:
        for option in (
            click.option("--name", default=default_name, show_default=True, help="Folder of this identity in --home."),
            click.option(
                "--key",
                type=click.Path(path_type=Path, dir_okay=False),
                default=None,
                envvar="CYXNODE_KEY",
                help="Key file (default: key.json in the identity's folder, made when missing).",
            ),
        ):
            command = option(command)
        return command

    return decorate


def identity(home: Path, name: str, key: Path | None) -> tuple[KeyPair, Path]:
    """The key and the folder of an identity; the default key is made when it does not exist, a named one never."""
    if not name or "/" in name or name.startswith("."):
        raise LocalError(f"{name!r} cannot be a folder", field="name", fix="use letters, digits and dashes")
    folder = home / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise LocalError(f"{folder}: {error.strerror}", field="home", fix="choose a writable --home") from None
    path = key or folder / "key.json"
    if key is None and not path.exists():
        make_key(path)
    return load_key(path), folder


def make_key(path: Path) -> KeyPair:
    """A new key, written to `path`; LocalError when it cannot be, or when a key is there already."""
    pair = KeyPair.generate()
    try:
        save_key(path, pair)
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="key", fix="choose a writable path") from None
    return pair


def seeds(home: Path, given: tuple[str, ...]) -> tuple[str, ...]:
    """Bootstrap addresses: those given, else the lines of the seeds file, if any. LocalError on a bad one."""
    path = home / SEEDS_FILE
    found = given
    if not given and path.exists():
        try:
            found = tuple(path.read_text().split())
        except (OSError, ValueError) as error:
            raise LocalError(f"{path}: {error}", field="bootstrap", fix="give --bootstrap ADDRESS") from None
    return checked_addresses(found)


def nobody_known(home: Path) -> LocalError:
    """The error of one who has nobody to dial: no bootstrap address, and no peer of an earlier life."""
    return LocalError(
        "no bootstrap node is known",
        field="bootstrap",
        fix=f"give --bootstrap ADDRESS, start `cyxnode bootstrap run`, or write addresses into {home / SEEDS_FILE}",
    )


def checked_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The same addresses; LocalError names one that is not written as bootstrap nodes print theirs."""
    for address in addresses:
        if not ADDRESS.fullmatch(address):
            fix = "write it like /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW..., as `cyxnode bootstrap run` prints it"
            raise LocalError(f"{address[:80]!r} is not an address of a peer", field="bootstrap", fix=fix)
    return addresses
