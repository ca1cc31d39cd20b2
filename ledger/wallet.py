"""Money of one key: what it holds, and payments that are checked before they are signed.

What goes to an address without a key behind it is lost, so a payment names a wallet: an address on the ed25519 curve
that is no token account, no mint and no account of a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from solders.pubkey import Pubkey

from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair
from ..protocol.units import base58, format_cyx, format_sol
from .escrow_layout import SYSTEM_PROGRAM, TOKEN_PROGRAM, associated_token_address
from .faucet import transfer_lamports, transfer_tokens
from .rpc import AccountData, Rpc
from .token import TOKEN_ACCOUNT_BYTES, TokenAccount, read_mint, read_token_account

FEE_LAMPORTS = 5_000
"""Base fee of a transaction with one signature; a priority fee may come on top."""
_TOKEN_2022_PROGRAM = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")


@dataclass(frozen=True, slots=True)
class Payment:
    """A checked payment. `amount` is in micro-CYX or lamports; `rent` is what a missing token account costs.

    `unseen` says that nothing was ever at the receiver's address: it has no checksum, so it may be a misspelt one.
    """

    to: bytes
    unit: Literal["CYX", "SOL"]
    amount: int
    rent: int
    unseen: bool

    @property
    def text(self) -> str:
        """The amount with its unit."""
        return f"{format_cyx(self.amount) if self.unit == 'CYX' else format_sol(self.amount)} {self.unit}"


async def plan_tokens(rpc: Rpc, mint: bytes, sender: bytes, to: bytes, amount: int) -> Payment:
    """A payment of `amount` micro-CYX, checked against the chain. LocalError names `address`, `amount` or `balance`."""
    _check_amount(amount, sender, to)
    token = Pubkey.from_bytes(mint)
    source, target = (bytes(associated_token_address(Pubkey.from_bytes(one), token)) for one in (sender, to))
    wallet, own, destination, there = await rpc.get_accounts([sender, source, to, target])
    check_wallet(to, destination, field="address")
    theirs, mine = _tokens(there), _tokens(own)
    held = mine.amount if mine is not None and mine.owner == sender else 0
    if amount > held:
        _too_much(f"{format_cyx(amount)} CYX", f"{format_cyx(held)} CYX")
    if theirs is not None and theirs.owner != to:
        text = f"the token account of {base58(to)} does not belong to it any more"
        raise LocalError(text, field="address", fix="ask for another wallet")
    rent = 0 if theirs is not None else await rpc.rent(TOKEN_ACCOUNT_BYTES)
    await check_lamports(
        rpc, wallet, FEE_LAMPORTS + rent, "the fee and the receiver's token account" if rent else "the fee"
    )
    return Payment(to, "CYX", amount, rent, unseen=destination is None and theirs is None)


async def plan_lamports(rpc: Rpc, sender: bytes, to: bytes, amount: int) -> Payment:
    """A payment of `amount` lamports, checked against the chain. LocalError names `address`, `amount` or `balance`."""
    _check_amount(amount, sender, to)
    wallet, destination = await rpc.get_accounts([sender, to])
    check_wallet(to, destination, field="address")
    held, least = wallet.lamports if wallet else 0, await rpc.rent(0)
    left = held - amount - FEE_LAMPORTS
    if left < 0:
        _too_much(f"{format_sol(amount)} SOL and the fee", f"{format_sol(held)} SOL")
    if (destination.lamports if destination else 0) + amount < least:
        text = f"{format_sol(amount)} SOL is less than a new account must hold"
        raise LocalError(text, field="amount", fix=f"send at least {format_sol(least)} SOL")
    if _sinks(held, left, least):
        text = f"would leave {format_sol(left)} SOL, less than an account must hold"
        fix = f"leave at least {format_sol(least)} SOL, or send all: {format_sol(held - FEE_LAMPORTS)} SOL"
        raise LocalError(text, field="amount", fix=fix)
    return Payment(to, "SOL", amount, rent=0, unseen=destination is None)


async def pay(rpc: Rpc, key: KeyPair, mint: bytes, payment: Payment, *, reference: str) -> str:
    """Land a checked payment; returns the signature. `reference` keeps equal payments apart."""
    if payment.unit == "SOL":
        return await transfer_lamports(rpc, key, payment.to, payment.amount, reference=reference)
    return await transfer_tokens(rpc, key, mint, payment.to, payment.amount, reference=reference)


def check_wallet(address: bytes, account: AccountData | None, *, field: str) -> None:
    """LocalError unless `address`, at which `account` was read, can be a person's wallet."""
    owner = account.owner if account else bytes(SYSTEM_PROGRAM)
    if account and owner in (bytes(TOKEN_PROGRAM), bytes(_TOKEN_2022_PROGRAM)):
        held, minted = read_token_account(account.data[:TOKEN_ACCOUNT_BYTES]), read_mint(account.data)
        if held is not None and Pubkey.from_bytes(held.owner).is_on_curve():
            text = f"this is a token account of {base58(held.owner)}"
            raise LocalError(text, field=field, fix="name its owner; the token account is found by itself")
        what = "a token account of a program" if held else "a mint" if minted else "an account of the token program"
        raise LocalError(f"this is {what}, not a wallet", field=field, fix="name a wallet")
    if owner != bytes(SYSTEM_PROGRAM):
        text = f"this is an account of the program {base58(owner)}, not a wallet: what goes there is lost"
        raise LocalError(text, field=field, fix="name a wallet")
    if not Pubkey.from_bytes(address).is_on_curve():
        text = "no key can belong to this address: what goes there is lost"
        raise LocalError(text, field=field, fix="name a wallet; check that the address was copied whole")


async def check_lamports(rpc: Rpc, wallet: AccountData | None, needed: int, purpose: str) -> None:
    """LocalError when a wallet has too little SOL for `purpose`."""
    held, least = wallet.lamports if wallet else 0, await rpc.rent(0)
    if held < needed or _sinks(held, held - needed, least):
        text = f"{format_sol(held)} SOL do not cover {format_sol(needed)} SOL for {purpose}"
        fix = f"hold {format_sol(needed + least)} SOL (on the local chain: cyxnode chain airdrop)"
        raise LocalError(text if held < needed else f"{text} and the rent of the wallet", field="balance", fix=fix)


def _sinks(held: int, left: int, least: int) -> bool:
    """The cluster's rule of rent: an account that holds the rent's deposit keeps it, or is emptied."""
    return held >= least > left > 0


def _tokens(account: AccountData | None) -> TokenAccount | None:
    return read_token_account(account.data) if account and account.owner == bytes(TOKEN_PROGRAM) else None


def _check_amount(amount: int, sender: bytes, to: bytes) -> None:
    if to == sender:
        raise LocalError("this is the sender's own address", field="address", fix="name another wallet")
    if amount <= 0:
        raise LocalError("is zero", field="amount", fix="send something")


def _too_much(asked: str, held: str) -> None:
    fix = "send less, or add to it (on the local chain: cyxnode chain airdrop)"
    raise LocalError(f"{asked} is more than the balance of {held}", field="amount", fix=fix)
