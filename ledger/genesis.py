"""The first moments of a local chain: the CYX mint, the escrow program by the real loader, its Config.

Every step looks first whether it has been done, so a chain that was killed in the middle goes on where it stopped,
and a restarted chain is left alone. The faucet's key is mint authority, admin and upgrade authority.
"""

from __future__ import annotations

from typing import Final

from solders.pubkey import Pubkey

from ..protocol.errors import LocalError
from ..protocol.limits import FEE_BPS_MAX, MICRO
from .addresses import LOCAL_MINT, LOCAL_PROGRAM_ID, local_keypair
from .cluster import LocalCluster
from .deploy import deploy_program
from .direct_rpc import DirectRpc
from .escrow_layout import PROGRAM_PATH, config_address, decode_config
from .node_instructions import initialise
from .sender import send_and_confirm
from .token import MINT_BYTES, create_mint

FEE_BPS: Final = FEE_BPS_MAX
VERIFIER_SHARE_BPS: Final = 2_000
MINIMUM_STAKE_MICRO_CYX: Final = 100 * MICRO
UNBONDING_S: Final = 31 * 86_400
"""No job may last longer: an order's work may take 30 days."""
UNBONDING_MAX_S: Final = 1 << 40
"""The program takes no more."""
GRACE_S: Final = 60


async def ensure_genesis(cluster: LocalCluster, *, unbonding_s: int | None = None, bare: bool = False) -> None:
    """Bring a chain to the state in which nodes can register. May advance the cluster by one slot.

    `unbonding_s` is the unbonding time of a new chain, UNBONDING_S unless given. LocalError when the program would not
    take it, or when the chain has another one already. A `bare` chain gets the mint alone, for who wants to deploy the
    program as on any other cluster.
    """
    if unbonding_s is not None and not GRACE_S < unbonding_s <= UNBONDING_MAX_S:
        fix = f"from {GRACE_S + 1}, above the grace after a job's deadline, to {UNBONDING_MAX_S} seconds"
        raise LocalError(f"{unbonding_s} s", field="unbonding", fix=fix)
    rpc, faucet = DirectRpc(cluster), cluster.faucet
    mint, program = local_keypair("mint"), local_keypair("program")
    if await rpc.get_account(LOCAL_MINT) is None:
        instructions = create_mint(faucet.pubkey(), mint.pubkey(), faucet.pubkey(), await rpc.rent(MINT_BYTES))
        await send_and_confirm(rpc, instructions, [faucet, mint])
    if bare:
        return
    if await rpc.get_account(LOCAL_PROGRAM_ID) is None:
        await deploy_program(rpc, faucet, program, local_keypair("buffer"), program_elf())
        cluster.advance(cluster.unix_s)  # a program can be called from the slot after its deployment on
    config = await rpc.get_account(bytes(config_address(program.pubkey())))
    if config is None:
        await _initialise(rpc, cluster, program.pubkey(), unbonding_s or UNBONDING_S)
    elif unbonding_s not in (None, there := decode_config(config.data).unbonding_s):
        fix = "leave it out, or start a new chain: --in-memory, or another --home"
        raise LocalError(f"this chain has {there} s, which cannot be changed", field="unbonding", fix=fix)


async def _initialise(rpc: DirectRpc, cluster: LocalCluster, program: Pubkey, unbonding_s: int) -> None:
    instructions = initialise(
        program,
        cluster.faucet.pubkey(),
        Pubkey.from_bytes(LOCAL_MINT),
        local_keypair("treasury").pubkey(),
        genesis=cluster.genesis_hash,
        fee_bps=FEE_BPS,
        verifier_share_bps=VERIFIER_SHARE_BPS,
        minimum_stake=MINIMUM_STAKE_MICRO_CYX,
        unbonding_s=unbonding_s,
        grace_s=GRACE_S,
    )
    await send_and_confirm(rpc, instructions, [cluster.faucet])


def program_elf() -> bytes:
    """The escrow program as built; LocalError when it cannot be read."""
    try:
        return PROGRAM_PATH.read_bytes()
    except OSError as error:
        text = f"{PROGRAM_PATH} cannot be read: {error.strerror}"
        raise LocalError(
            text, field="escrow program", fix="reinstall cyxnode, or build it with make program"
        ) from error
