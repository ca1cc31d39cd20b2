"""The program's Config on any cluster: made once, by whoever may upgrade the program, and never changed."""

from __future__ import annotations

from dataclasses import dataclass

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from ..protocol.chain import ChainConfig
from ..protocol.errors import LocalError, RemoteError
from ..protocol.units import MicroCyx, base58
from .escrow_errors import ERRORS
from .escrow_layout import CONFIG_BYTES, TOKEN_PROGRAM, config_address, decode_config
from .node_instructions import initialise
from .rpc import Rpc, TransactionFault
from .sender import LAMPORTS_PER_SIGNATURE, send_and_confirm
from .token import CYX_DECIMALS, TOKEN_ACCOUNT_BYTES, read_mint
from .transaction import instruction_error


@dataclass(frozen=True, slots=True)
class Terms:
    """What Config says. Addresses are 32 bytes, `treasury` a wallet; times in seconds."""

    mint: bytes
    treasury: bytes
    fee_bps: int
    verifier_share_bps: int
    minimum_stake: MicroCyx
    unbonding_s: int
    grace_s: int

    def kept_by(self, config: ChainConfig) -> bool:
        """Whether a Config on the chain says the same."""
        return self == Terms(
            config.mint, config.treasury, config.fee_bps, config.verifier_share_bps, config.minimum_stake,
            config.unbonding_s, config.grace_s,
        )  # fmt: skip


async def read_config(rpc: Rpc, program: Pubkey) -> ChainConfig | None:
    """Config of `program`; None before it is initialised."""
    account = await rpc.get_account(bytes(config_address(program)))
    if account is None or account.owner != bytes(program):
        return None
    try:
        return decode_config(account.data)
    except RemoteError as error:
        fix = "use the cyxnode that fits this program"
        raise LocalError(f"the Config of {program} cannot be read: {error}", field="program", fix=fix) from error


async def require_mint(rpc: Rpc, mint: bytes) -> None:
    """LocalError unless `mint` is a token of the classic program with six decimals."""
    account = await rpc.get_account(mint)
    found = read_mint(account.data) if account and account.owner == bytes(TOKEN_PROGRAM) else None
    if found is None or found[1] != CYX_DECIMALS:
        what = "is no mint of the SPL Token program on this cluster" if found is None else f"has {found[1]} decimals"
        fix = f"name a mint with {CYX_DECIMALS} decimals"
        raise LocalError(f"{base58(mint)} {what}", field="mint", fix=fix)


async def initialisation_cost(rpc: Rpc) -> int:
    """Lamports for Config, the stake vault and the treasury's token account, and fees."""
    token_accounts = 2 * await rpc.rent(TOKEN_ACCOUNT_BYTES)
    return await rpc.rent(CONFIG_BYTES) + token_accounts + LAMPORTS_PER_SIGNATURE + rpc.policy.priority_fee_max_lamports


async def initialise_program(rpc: Rpc, authority: Keypair, program: Pubkey, terms: Terms) -> bool:
    """Make Config; False when it was there already with these terms, LocalError when with others."""
    config = await read_config(rpc, program)
    if config is not None:
        if terms.kept_by(config):
            return False
        text = f"{program} was initialised with other terms, which never change"
        raise LocalError(text, field="initialise", fix="deploy under a new program key, or leave --initialise out")
    await require_mint(rpc, terms.mint)
    instructions = initialise(
        program,
        authority.pubkey(),
        Pubkey.from_bytes(terms.mint),
        Pubkey.from_bytes(terms.treasury),
        genesis=await rpc.genesis_hash(),
        fee_bps=terms.fee_bps,
        verifier_share_bps=terms.verifier_share_bps,
        minimum_stake=terms.minimum_stake,
        unbonding_s=terms.unbonding_s,
        grace_s=terms.grace_s,
    )
    try:
        await send_and_confirm(rpc, instructions, [authority])
    except TransactionFault as fault:
        found = instruction_error(fault.error)
        known = ERRORS.get(found[1]) if found and found[1] is not None else None
        raise TransactionFault(fault.error, message=known or "", logs=fault.logs) from fault
    return True
