"""`cyxnode chain deploy`: the escrow program onto any cluster, in steps of which each may be interrupted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair, load_key
from ..protocol.limits import FEE_BPS_MAX
from ..protocol.units import MicroCyx, base58, parse_cyx, parse_id
from .paying import paying_options, send_policy
from .settings import home_option, make_key, rpc_option

if TYPE_CHECKING:
    from ..ledger.initialisation import Terms
    from ..ledger.rpc import Rpc

PROGRAM_KEY = "program.json"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a deployment shall do."""

    payer: KeyPair
    program: KeyPair
    terms: Terms | None
    upgrade: bool
    final: bool


@click.command()
@home_option
@rpc_option
@paying_options
@click.option(
    "--payer",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Key file that pays, and becomes (or is) the upgrade authority.",
)
@click.option(
    "--program-key",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help=f"Key file of the program's address, made when missing (default: {PROGRAM_KEY} in --home).",
)
@click.option("--upgrade", is_flag=True, help="Replace the code of a program that is there already.")
@click.option("--initialise", is_flag=True, help="Make Config, with the six options below.")
@click.option("--mint", default=None, help="CYX mint in base58.")
@click.option("--treasury", default=None, help="Wallet in base58 that earns the fee (default: the payer).")
@click.option("--fee-bps", default=FEE_BPS_MAX, show_default=True, type=click.IntRange(0, FEE_BPS_MAX))
@click.option("--verifier-share-bps", default=2_000, show_default=True, type=click.IntRange(0, 10_000))
@click.option("--minimum-stake", default="100", show_default=True, help="CYX.")
@click.option("--unbonding-days", default=31, show_default=True, type=click.IntRange(1, 365))
@click.option("--final", is_flag=True, help="At the end give the upgrade authority up, for ever.")
@click.option("--yes", is_flag=True, help="Do not ask before --final.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def deploy(home: Path, rpc: str, payer: Path, program_key: Path | None, yes: bool, as_json: bool, **wish: Any) -> None:
    """Deploy the escrow program onto any cluster. After an interruption the same command goes on where it stopped."""
    from ..ledger.http_rpc import open_http_rpc

    key_path = program_key or home / PROGRAM_KEY
    wished = _wish(load_key(payer), key_path, **wish)
    if wished.final and not yes:
        text = "--final: nobody will be able to correct or upgrade this program, ever. Go on?"
        click.confirm(text, abort=True, err=True)

    async def run() -> dict[str, Any]:
        async with open_http_rpc(rpc, send_policy()) as client:
            return await _deploy(client, wished)

    facts = trio.run(run)
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{name:20} {value}" for name, value in facts.items()))


def _wish(
    payer: KeyPair, key_path: Path, *, upgrade: bool, initialise: bool, mint: str | None, treasury: str | None,
    fee_bps: int, verifier_share_bps: int, minimum_stake: str, unbonding_days: int, final: bool,
) -> Wish:  # fmt: skip
    from ..ledger.genesis import GRACE_S
    from ..ledger.initialisation import Terms

    terms = None
    if initialise:
        if mint is None:
            raise LocalError("is missing", field="mint", fix="name the CYX mint: --mint ADDRESS")
        owner = parse_id(treasury, field="treasury") if treasury else payer.node_id
        stake = parse_cyx(minimum_stake, field="minimum-stake")
        terms = Terms(
            parse_id(mint, field="mint"), owner, fee_bps, verifier_share_bps, MicroCyx(stake),
            unbonding_days * 86_400, GRACE_S,
        )  # fmt: skip
    if upgrade and not key_path.exists():
        fix = "give --program-key the file that the program was deployed with"
        raise LocalError(f"{key_path} does not exist", field="program-key", fix=fix)
    program = load_key(key_path) if key_path.exists() else make_key(key_path)
    return Wish(payer, program, terms, upgrade, final)


async def _deploy(rpc: Rpc, wish: Wish) -> dict[str, Any]:
    from solders.keypair import Keypair

    from ..ledger import deploy as steps
    from ..ledger.genesis import program_elf
    from ..ledger.initialisation import initialisation_cost, initialise_program, read_config, require_mint

    elf, payer, program = program_elf(), Keypair.from_seed(wish.payer.seed), Keypair.from_seed(wish.program.seed)
    address = program.pubkey()
    if wish.terms is not None:
        await require_mint(rpc, wish.terms.mint)  # before anything is paid for
    elif wish.final and await read_config(rpc, address) is None:
        fix = "add --initialise: only the upgrade authority may, and it is about to be given up"
        raise LocalError("the program is not initialised", field="final", fix=fix)
    reserve = await initialisation_cost(rpc) if wish.terms is not None else 0
    sent = await steps.install_or_upgrade(
        rpc, payer, program, elf, upgrade=wish.upgrade, reserve=reserve, told=_progress
    )  # fmt: skip
    found = await steps.verify_program(rpc, address, elf)
    await steps.wait_for_slot_after(rpc, found.slot)  # only then can it be called
    made = wish.terms is not None and await initialise_program(rpc, payer, address, wish.terms)
    if wish.final and found.authority is not None:
        await steps.give_up_authority(rpc, payer, address)
        found = await steps.verify_program(rpc, address, elf)
    config = await read_config(rpc, address)
    return {
        "program": str(address),
        "verified_sha256": sha256(elf).hexdigest(),
        "bytes": len(elf),
        "transactions": sent,
        "upgrade_authority": base58(found.authority) if found.authority else None,
        "initialised": "now" if made else "before" if config else "no",
        "mint": base58(config.mint) if config else None,
    }


def _progress(done: int, of: int) -> None:
    click.echo(f"\r{done} of {of} chunks", err=True, nl=done == of)
