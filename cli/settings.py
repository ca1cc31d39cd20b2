"""Where things are on this machine, and the options that several commands share.

Precedence: the command line, then CYXNODE_* in the environment, then `config.toml` in the home directory (a table per
command, named like it), then the default.
"""

from __future__ import annotations

import os
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
JOINING = ("bootstrap", "seeds", "seeds_key")
"""Settings that `config.toml` may have above its tables: they hold for every command that joins the network."""
JOINING_COMMANDS = (
    ("run",),
    ("submit", "train"),
    ("submit", "infer"),
    ("job", "watch"),
    ("job", "result"),
    ("market", "models"),
    ("doctor",),
)

Command = Callable[..., Any]


def default_home() -> Path:
    """CYXNODE_HOME, else ~/.cyxnode"""
    given = os.environ.get("CYXNODE_HOME")
    return Path(given) if given else Path.home() / ".cyxnode"


def load_config(home: Path) -> dict[str, Any]:
    """Defaults from `config.toml`; LocalError when it is not TOML, or says how to join in a way that is none."""
    path = home / "config.toml"
    try:
        config = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LocalError(f"{path}: {error}", field="config", fix="correct it, or remove it") from None
    shared = {name: config[name] for name in JOINING if name in config}
    for command in JOINING_COMMANDS:
        table = config
        for word in command:
            table = table.setdefault(word, {})
            if not isinstance(table, dict):
                raise LocalError(f"{path}: {word} is no table", field="config", fix=f"write [{'.'.join(command)}]")
        for name, value in {**shared, **table}.items():
            table[name] = _joining(path, name, value) if name in JOINING else value
    return config


def _joining(path: Path, name: str, value: object) -> object:
    """One setting of JOINING as click expects it: addresses may be an array, or one text with spaces."""
    if isinstance(value, str):
        return value.split() if name == "bootstrap" else value
    if name == "bootstrap" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    fix = f"write {name} = " + ('["/dnsaddr/seeds.example.org"]' if name == "bootstrap" else '"text"')
    raise LocalError(f"{path}: {name} is {value!r}"[:160], field="config", fix=fix)


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
    return program_option(rpc_option(paying_options(command)))


def program_option(command: Command) -> Command:
    """--program"""
    return click.option(
        "--program", default=None, envvar="CYXNODE_PROGRAM", help="Escrow program (default: the local chain's)."
    )(command)


def program_id(text: str | None) -> bytes:
    """The escrow program: `text` in base58, or that of the local chain."""
    from ..ledger.addresses import LOCAL_PROGRAM_ID

    return LOCAL_PROGRAM_ID if text is None else parse_id(text, field="program")


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


def name_option(default_name: str) -> Callable[[Command], Command]:
    """--name"""
    return click.option("--name", default=default_name, show_default=True, help="Folder of this identity in --home.")


def key_options(default_name: str) -> Callable[[Command], Command]:
    """--name and --key"""

    def decorate(command: Command) -> Command:
        return click.option(
            "--key",
            type=click.Path(path_type=Path, dir_okay=False),
            default=None,
            envvar="CYXNODE_KEY",
            help="Key file (default: key.json in the identity's folder, made when missing).",
        )(name_option(default_name)(command))

    return decorate


def identity_folder(home: Path, name: str) -> Path:
    """The folder of an identity, whether or not it exists."""
    if not name or "/" in name or name.startswith("."):
        raise LocalError(f"{name!r} cannot be a folder", field="name", fix="use letters, digits and dashes")
    return home / name


def identity(home: Path, name: str, key: Path | None) -> tuple[KeyPair, Path]:
    """The key and the folder of an identity; the default key is made when it does not exist, a named one never."""
    folder = identity_folder(home, name)
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
