"""`cyxnode wallet stake | unstake | withdraw`: the money of a node, and its way out of the network and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trio

from ..protocol.chain import ChainConfig, NodeAccount, Register, RequestUnstake, WithdrawEarned, WithdrawStake
from ..protocol.errors import LocalError
from ..protocol.standing import Standing, span_text, standing, until_text
from ..protocol.units import MicroCyx, base58, format_cyx, parse_cyx, parse_id
from .settings import chain_options, home_option, identity, key_options
from .wallet_session import Wallet, ask, named, on_terminal, open_wallet, say_done, yes_option
from .wallet_text import node_json, standing_text

LEAVING = (Standing.UNBONDING, Standing.WITHDRAWABLE)
LEAVING_MEANS = """From now on this node is drawn for no committee and awarded no work; let it end what it has begun.
Its stake of {money} CYX stays liable for {span}; then `cyxnode wallet withdraw` pays it out.
`cyxnode run` does not start it again unless `cyxnode wallet stake 0 --reactivate` was given first."""


@dataclass(frozen=True, slots=True)
class Staked:
    """A registered node as read."""

    account: NodeAccount
    config: ChainConfig
    unix_s: int

    @property
    def standing(self) -> Standing:
        """How it stands."""
        return standing(self.account, self.config, self.unix_s)


async def read_node(wallet: Wallet) -> Staked:
    """The wallet's node; LocalError when it is none, or can never be one again."""
    config, account = await wallet.chain.config(), await wallet.chain.node(wallet.key.node_id)
    if account is None:
        text = f"{base58(wallet.address)} is not a registered node"
        fix = "name a node with --name or --key; `cyxnode run --stake CYX` registers one at its first start"
        raise LocalError(text, field="name", fix=fix)
    return Staked(account, config, (await wallet.chain.time()).unix_s)


@click.command()
@click.argument("amount")
@click.option("--payout", default=None, help="Address to which the node's money goes from now on.")
@click.option("--reactivate", is_flag=True, help="Also when the node is unbonding: it then serves again.")
@home_option
@key_options("requester")
@chain_options
@yes_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stake(
    amount: str,
    payout: str | None,
    reactivate: bool,
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Add CYX to the stake of a registered node. Its class stays; its payout address stays unless --payout is given."""
    more = parse_cyx(amount, field="amount")
    paid_to = parse_id(payout, field="payout") if payout is not None else None
    pair, _ = identity(home, name, key)

    async def work() -> None:
        async with open_wallet(rpc, program, pair) as wallet:
            node = await read_node(wallet)
            check_stake(node, more, changes=paid_to is not None, reactivate=reactivate)
            await check_means(wallet, more, paid_to)
            ask_stake(node, more, paid_to, reactivate=reactivate, yes=yes)
            wish = Register(node.account.execution_class, more, paid_to or node.account.payout)
            signature = await wallet.chain.submit(wish)
            after = await read_node(wallet)
            facts = await wallet.facts(signature)
        text = f"the stake is {format_cyx(after.account.stake)} CYX; the node is {standing_text_of(after)}"
        say_done(as_json, text, {**facts, "node": node_json_of(after)})

    trio.run(work)


def check_stake(node: Staked, more: MicroCyx, *, changes: bool, reactivate: bool) -> None:
    """LocalError when registering with `more` CYX would be refused, or would change nothing."""
    if node.standing is Standing.RETIRED:
        text = "this key was retired for equivocation"
        raise LocalError(text, field="name", fix="start over with a new key and a new stake")
    if not more and not changes and not (reactivate and node.standing in LEAVING):
        fix = "stake something, name a --payout, or give --reactivate while the node is unbonding"
        raise LocalError("is zero: nothing would change", field="amount", fix=fix)
    short = node.config.minimum_stake - node.account.stake - more
    if short > 0:
        text = f"the stake would stay below the minimum of {format_cyx(node.config.minimum_stake)} CYX"
        raise LocalError(text, field="amount", fix=f"at least {format_cyx(more + short)}")


async def check_means(wallet: Wallet, more: MicroCyx, payout: bytes | None) -> None:
    """LocalError when the wallet cannot pay, or when nobody could spend what the payout address gets."""
    from ..ledger.wallet import check_wallet

    if payout is not None:
        check_wallet(payout, await wallet.rpc.get_account(payout), field="payout")
    held = (await wallet.chain.balance(wallet.address)).micro_cyx
    if more > held:
        text = f"{format_cyx(more)} CYX is more than the balance of {format_cyx(held)} CYX"
        fix = f"send tokens to {base58(wallet.address)} first (on the local chain: cyxnode chain airdrop)"
        raise LocalError(text, field="amount", fix=fix)
    await check_fee(wallet, 1)


async def check_fee(wallet: Wallet, transactions: int) -> None:
    """LocalError when the wallet cannot pay for so many transactions."""
    from ..ledger.wallet import FEE_LAMPORTS, check_lamports

    own = await wallet.rpc.get_account(wallet.address)
    await check_lamports(wallet.rpc, own, transactions * FEE_LAMPORTS, "the fee")


def ask_stake(node: Staked, more: MicroCyx, payout: bytes | None, *, reactivate: bool, yes: bool) -> None:
    """Say what registering means, and ask. To come back is never decided by silence or by --yes."""
    what = f"add {format_cyx(more)} CYX to the stake of {format_cyx(node.account.stake)} CYX" if more else ""
    paid = f"pay the node's money to {base58(payout)} from now on" if payout is not None else ""
    back = ""
    if node.standing in LEAVING:
        back = f"end the unbonding ({standing_text_of(node)}): the node serves again, and its stake is liable again"
        if not reactivate and (yes or not on_terminal()):
            text = f"this node asked to leave; staking would {back}"
            raise LocalError(text, field="reactivate", fix="give --reactivate if that is meant")
    ask(f"{', '.join(part for part in (what, paid, back) if part)}?", yes=yes)


@click.command()
@home_option
@key_options("requester")
@chain_options
@yes_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def unstake(home: Path, name: str, key: Path | None, rpc: str, program: str | None, yes: bool, as_json: bool) -> None:
    """Ask for a node's stake: it gets no more work, and its stake can be withdrawn when the unbonding time is over."""
    pair, _ = identity(home, name, key)

    async def work() -> None:
        async with open_wallet(rpc, program, pair) as wallet:
            node = await read_node(wallet)
            check_unstake(node)
            await check_fee(wallet, 1)
            span, money = span_text(node.config.unbonding_s), format_cyx(node.account.stake)
            click.echo(LEAVING_MEANS.format(money=money, span=span), err=True)
            ask("leave?", yes=yes)
            signature = await wallet.chain.submit(RequestUnstake())
            after = await read_node(wallet)
            facts = await wallet.facts(signature)
        say_done(as_json, f"the node is {standing_text_of(after)}", {**facts, "node": node_json_of(after)})

    trio.run(work)


def check_unstake(node: Staked) -> None:
    """LocalError when there is nothing to ask for."""
    if node.standing in LEAVING:
        when = until_text(node.account.unbonding_at_s, node.unix_s)
        text = f"this node is leaving already; its stake can be withdrawn at {when}"
        raise LocalError(text, field="stake", fix="cyxnode wallet withdraw, then; or stay with stake 0 --reactivate")
    if not node.account.stake:
        raise LocalError("this node has no stake", field="stake", fix="nothing: there is nothing to ask for")


@click.command()
@home_option
@key_options("requester")
@chain_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def withdraw(home: Path, name: str, key: Path | None, rpc: str, program: str | None, as_json: bool) -> None:
    """Pay out what a node can have now: its earned shares, and its stake once the unbonding time is over."""
    pair, _ = identity(home, name, key)

    async def work() -> None:
        async with open_wallet(rpc, program, pair) as wallet:
            before = await read_node(wallet)
            payout = named(before.account.payout, wallet.address)
            due: list[tuple[str, MicroCyx, WithdrawEarned | WithdrawStake]] = []
            if before.account.earned:
                due.append(("earned", before.account.earned, WithdrawEarned(wallet.key.node_id)))
            if before.standing is Standing.WITHDRAWABLE and before.account.stake:
                due.append(("stake", before.account.stake, WithdrawStake(wallet.key.node_id)))
            if due:
                await check_fee(wallet, len(due))
            done: list[dict[str, Any]] = []
            for what, money, wish in due:
                signature = await wallet.chain.submit(wish)
                done.append({"what": what, "micro_cyx": money, "signature": signature})
                if not as_json:
                    click.echo(f"{what}: {format_cyx(money)} CYX to {payout}\nsignature  {signature}")
            after = await read_node(wallet)
        if as_json:
            paid_to = base58(after.account.payout)
            click.echo(json.dumps({"payout": paid_to, "withdrawn": done, "node": node_json_of(after)}))
        else:
            click.echo(remaining(after) if done else f"nothing can be withdrawn now; {remaining(after)}")

    trio.run(work)


def remaining(node: Staked) -> str:
    """What a node still has in the program, and when it can have it."""
    money = f"{format_cyx(node.account.stake)} CYX are staked"
    match node.standing:
        case Standing.UNBONDING:
            return f"{money}, unbonding until {until_text(node.account.unbonding_at_s, node.unix_s)}"
        case Standing.ACTIVE | Standing.BELOW_MINIMUM:
            span = span_text(node.config.unbonding_s)
            return f"{money}; to have them, `cyxnode wallet unstake` and wait {span}"
        case _:
            return "nothing is left" if not node.account.stake else money


def standing_text_of(node: Staked) -> str:
    """See standing_text."""
    return standing_text(node.account, node.config, node.unix_s)


def node_json_of(node: Staked) -> dict[str, Any]:
    """See node_json."""
    return node_json(node.account, node.config, node.unix_s)
