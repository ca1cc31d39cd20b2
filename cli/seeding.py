"""Where a command finds its first peers: given addresses, names in DNS, a signed list, or a file of --home."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import structlog

from ..bootstrap.dns_seeds import Resolver, is_dnsaddr, resolve_dnsaddr, system_resolver
from ..bootstrap.seed_list import read_seed_list
from ..p2p.addresses import parse_address
from ..protocol.errors import LocalError, TransientError
from .settings import SEEDS_FILE, Command
from .world import SystemClock

log = structlog.get_logger()
IN_HOME = f" (default: the lines of {SEEDS_FILE} in --home)"
_FIX = (
    "write it like /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW..., as `cyxnode bootstrap run` prints it, "
    "or like /dnsaddr/seeds.example.org"
)


@dataclass(frozen=True, slots=True)
class SeedSources:
    """What the options say. `seeds_key` is the publisher's public key in base58."""

    bootstrap: tuple[str, ...] = ()
    seeds: Path | None = None
    seeds_key: str | None = None


def seed_options(default: str, *, environment: bool = True) -> Callable[[Command], Command]:
    """--bootstrap, --seeds and --seeds-key, given to the command as one `bootstrap: SeedSources`. `default` says what
    holds when there are none; without `environment` only the command line counts."""
    variables = ("CYXNODE_SEEDS_KEY", "CYXNODE_SEEDS", "CYXNODE_BOOTSTRAP") if environment else (None, None, None)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def bundled(
            *args: Any, bootstrap: tuple[str, ...], seeds: Path | None, seeds_key: str | None, **options: Any
        ) -> Any:
            return command(*args, bootstrap=SeedSources(bootstrap, seeds, seeds_key), **options)

        decorated: Command = bundled
        for option in (
            click.option(
                "--seeds-key", default=None, envvar=variables[0], help="Public key of the publisher of --seeds."
            ),
            click.option(
                "--seeds",
                type=click.Path(path_type=Path, dir_okay=False),
                default=None,
                envvar=variables[1],
                help="Signed list of bootstrap addresses, as `cyxnode bootstrap list sign` writes it.",
            ),
            click.option(
                "--bootstrap",
                multiple=True,
                envvar=variables[2],
                help="Address of a bootstrap node or of any living node, or /dnsaddr/NAME to look up; "
                f"may be given several times{default}.",
            ),
        ):
            decorated = option(decorated)
        return decorated

    return decorate


def seeds(
    home: Path, sources: SeedSources, folder: Path | None = None, resolver: Resolver = system_resolver
) -> tuple[str, ...]:
    """The addresses to begin with: all that the options name, else the lines of the seeds file, if any.

    LocalError on a bad source. That DNS does not help is only a warning to an identity whose `folder` has a journal,
    since that may know peers.
    """
    given = [*sources.bootstrap, *_listed(sources)]
    if not given:
        given = _lines(home / SEEDS_FILE)
    found: dict[str, None] = {}
    for text in given:
        if is_dnsaddr(text):
            found.update(dict.fromkeys(_looked_up(text, resolver, may_fail=_has_journal(folder) or len(given) > 1)))
        else:
            found[checked_address(text)] = None
    return tuple(found)


def checked_address(text: str) -> str:
    """The same address; LocalError when it is not written as nodes print theirs."""
    try:
        parse_address(text)
    except LocalError as error:
        raise LocalError(error.message, field="bootstrap", fix=_FIX) from None
    return text


def nobody_known(home: Path) -> LocalError:
    """The error of one who has nobody to dial: no bootstrap address, and no peer of an earlier life."""
    return LocalError(
        "no bootstrap node is known",
        field="bootstrap",
        fix=f"give --bootstrap ADDRESS, start `cyxnode bootstrap run`, or write addresses into {home / SEEDS_FILE}",
    )


def _listed(sources: SeedSources) -> tuple[str, ...]:
    if sources.seeds is None:
        return ()
    if sources.seeds_key is None:
        fix = "give --seeds-key, the public key that its publisher tells you"
        raise LocalError("whose signature to trust is not said", field="seeds_key", fix=fix)
    return read_seed_list(sources.seeds, sources.seeds_key, SystemClock().unix_ms() // 1000).addresses


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split() if path.exists() else []
    except (OSError, ValueError) as error:
        raise LocalError(f"{path}: {error}", field="bootstrap", fix="give --bootstrap ADDRESS") from None


def _looked_up(text: str, resolver: Resolver, *, may_fail: bool) -> tuple[str, ...]:
    try:
        return resolve_dnsaddr(text, resolver)
    except (LocalError, TransientError) as error:
        if not may_fail:
            raise
        log.warning("bootstrap name not resolved", name=text, cause=str(error))
        return ()


def _has_journal(folder: Path | None) -> bool:
    return folder is not None and (folder / "journal").exists()
