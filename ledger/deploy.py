"""Deploying a program as any cluster demands: a buffer, chunks of code, then the loader verifies and installs it.

Every step looks first at what the chain holds already. An interrupted deployment goes on where it stopped, since the
buffer's key follows from the payer, the program and the code; what has been written is not written again. The program
can be called from the slot after its installation on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import trio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from ..protocol.errors import ChainRejected, ChainUnreachable, LocalError
from ..protocol.limits import CONFIRM_POLL_MAX_S, CONFIRM_TIMEOUT_S, DEPLOY_CHUNK_BYTES, DEPLOY_PARALLEL_MAX
from ..protocol.units import base58
from . import loader
from .escrow_layout import program_data_address
from .loader import BUFFER_HEADER_BYTES, PROGRAM_BYTES, PROGRAM_DATA_HEADER_BYTES, ProgramData
from .rpc import Rpc, TransactionFault
from .sender import LAMPORTS_PER_SIGNATURE, send_and_confirm

EXTENSION_MIN_BYTES = 10_240
"""The loader makes room in no smaller steps (SIMD-0431)."""
Told = Callable[[int, int], None]
"""Told (chunks on the chain, chunks in all) after each of them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Lamports that a deployment needs at its peak, rent that comes back at its end included, and what is there."""

    needed: int
    held: int


def buffer_key(payer: Keypair, program: Pubkey, elf: bytes) -> Keypair:
    """The buffer of one payer for this code of this program: a secret that need not be stored."""
    seed = sha256(b"cyxnode deploy buffer" + payer.secret() + bytes(program) + sha256(elf).digest())
    return Keypair.from_seed(seed.digest())


async def program_data(rpc: Rpc, program: Pubkey) -> ProgramData | None:
    """What is installed at `program`; None when nothing is. LocalError when something else has this address."""
    account, data = await rpc.get_accounts([bytes(program), bytes(program_data_address(program))])
    if account is None:
        return None
    found = loader.read_program_data(data)
    if not loader.is_program(account) or found is None:
        text = f"{program} is an account of another kind on this cluster"
        raise LocalError(text, field="program", fix="choose another program key")
    return found


async def deployment_cost(rpc: Rpc, payer: Pubkey, buffer: Pubkey, elf: bytes, installed: ProgramData | None) -> Cost:
    """What installing or upgrading takes: the buffer's rent is needed now and comes back with the installation."""
    wallet, written = await rpc.get_accounts([bytes(payer), bytes(buffer)])
    rent = await rpc.rent(BUFFER_HEADER_BYTES + len(elf)) if written is None else 0
    if installed is None:
        code = await rpc.rent(PROGRAM_DATA_HEADER_BYTES + len(elf))
        returned = written.lamports if written else rent
        rent += max(0, code - returned) + await rpc.rent(PROGRAM_BYTES)
    elif len(elf) > len(installed.code):
        more = max(len(elf) - len(installed.code), EXTENSION_MIN_BYTES)
        rent += await rpc.rent(more) - await rpc.rent(0)
    signatures = len(_offsets(elf)) + 6
    fees = signatures * LAMPORTS_PER_SIGNATURE + len(_offsets(elf)) * rpc.policy.priority_fee_max_lamports
    keep = await rpc.rent(0)  # the payer's own account must stay above it
    return Cost(rent + fees + keep, wallet.lamports if wallet else 0)


async def install_or_upgrade(
    rpc: Rpc,
    payer: Keypair,
    program: Keypair,
    elf: bytes,
    *,
    upgrade: bool = False,
    reserve: int = 0,
    told: Told = lambda done, of: None,
) -> int:
    """Bring `elf` to `program`'s address if it is not there; returns the number of transactions.

    LocalError before anything is paid for: other code is there and `upgrade` is not wished, none is there and it is,
    or the payer holds too little to have `reserve` lamports left.
    """
    address = program.pubkey()
    installed = await program_data(rpc, address)
    if installed is None and upgrade:
        raise LocalError(f"{address} is not deployed here", field="upgrade", fix="leave --upgrade out, or check --rpc")
    if installed is not None and installed.holds(elf):
        return 0
    if installed is not None and not upgrade:
        fix = "add --upgrade to replace it, or choose another --program-key"
        raise LocalError(f"{address} is deployed already, with other code", field="program-key", fix=fix)
    buffer = buffer_key(payer, address, elf)
    cost = await deployment_cost(rpc, payer.pubkey(), buffer.pubkey(), elf, installed)
    short = cost.needed + reserve - cost.held
    if short > 0:
        missing = f"{short / 10**9:.9f}".rstrip("0").rstrip(".")
        text = f"{payer.pubkey()} holds {cost.held / 10**9:.4f} SOL, and {missing} are missing"
        fix = f"send it {missing} SOL; what the upload needs for rent comes back at its end"
        raise LocalError(text, field="payer", fix=fix)
    if installed is None:
        return await deploy_program(rpc, payer, program, buffer, elf, parallel=DEPLOY_PARALLEL_MAX, told=told)
    return await upgrade_program(rpc, payer, address, buffer, elf, installed, parallel=DEPLOY_PARALLEL_MAX, told=told)


async def deploy_program(
    rpc: Rpc,
    payer: Keypair,
    program: Keypair,
    buffer: Keypair,
    elf: bytes,
    *,
    parallel: int = 1,
    told: Told = lambda done, of: None,
) -> int:
    """Install `elf` at `program`'s address with `payer` as upgrade authority; returns the number of transactions.

    Raises what `send_and_confirm` raises, and LocalError when the buffer's address is taken.
    """
    sent = await upload(rpc, payer, buffer, elf, parallel=parallel, told=told)
    rent = await rpc.rent(PROGRAM_BYTES)
    installing = loader.install(payer.pubkey(), program.pubkey(), buffer.pubkey(), len(elf), rent)
    await send_and_confirm(rpc, installing, [payer, program])
    return sent + 1


async def upgrade_program(
    rpc: Rpc,
    authority: Keypair,
    program: Pubkey,
    buffer: Keypair,
    elf: bytes,
    installed: ProgramData,
    *,
    parallel: int = 1,
    told: Told = lambda done, of: None,
) -> int:
    """Replace what is installed; returns the number of transactions. LocalError when `authority` may not."""
    if installed.authority != bytes(authority.pubkey()):
        named = base58(installed.authority) if installed.authority else "nobody: it was given up for ever"
        fix = "deploy under a new program key" if installed.authority is None else "give --payer its key file"
        raise LocalError(f"{authority.pubkey()} may not upgrade {program}; {named} may", field="payer", fix=fix)
    sent = await upload(rpc, authority, buffer, elf, parallel=parallel, told=told)
    more = len(elf) - len(installed.code)
    if more > 0:
        await wait_for_slot_after(rpc, installed.slot)  # the loader takes one change a slot
        await _extend(rpc, authority, program, max(more, EXTENSION_MIN_BYTES))
        await wait_for_slot_after(rpc, (await rpc.time()).slot)
        sent += 1
    await send_and_confirm(rpc, [loader.upgrade(authority.pubkey(), program, buffer.pubkey())], [authority])
    return sent + 1


async def upload(
    rpc: Rpc, payer: Keypair, buffer: Keypair, elf: bytes, *, parallel: int = 1, told: Told = lambda done, of: None
) -> int:
    """Bring `elf` into the buffer, at most `parallel` chunks at a time; returns the number of transactions."""
    account = await rpc.get_account(bytes(buffer.pubkey()))
    written, sent = b"", 0
    if account is None:
        rent = await rpc.rent(BUFFER_HEADER_BYTES + len(elf))
        creating = loader.create_buffer(payer.pubkey(), buffer.pubkey(), len(elf), rent)
        await send_and_confirm(rpc, creating, [payer, buffer])
        sent += 1
    else:
        found = loader.read_buffer(account)
        if found is None or found[0] != bytes(payer.pubkey()) or len(found[1]) < len(elf):
            raise LocalError(f"{buffer.pubkey()} is in use", field="buffer", fix="deploy with another payer")
        written = found[1]
    offsets = _offsets(elf)
    missing = [at for at in offsets if written[at : at + DEPLOY_CHUNK_BYTES] != elf[at : at + DEPLOY_CHUNK_BYTES]]
    done = len(offsets) - len(missing)
    told(done, len(offsets))
    queue = list(reversed(missing))

    async def write_chunks() -> None:
        nonlocal done
        while queue:
            at = queue.pop()
            chunk = elf[at : at + DEPLOY_CHUNK_BYTES]
            await send_and_confirm(rpc, [loader.write(buffer.pubkey(), payer.pubkey(), at, chunk)], [payer])
            done += 1
            told(done, len(offsets))

    if parallel == 1:
        await write_chunks()
    else:
        async with trio.open_nursery() as nursery:
            for _ in range(min(parallel, DEPLOY_PARALLEL_MAX)):
                nursery.start_soon(write_chunks)
    return sent + len(missing)


async def give_up_authority(rpc: Rpc, authority: Keypair, program: Pubkey) -> None:
    """Make `program` unchangeable for ever."""
    await send_and_confirm(rpc, [loader.give_up_authority(authority.pubkey(), program)], [authority])


async def verify_program(rpc: Rpc, program: Pubkey, elf: bytes) -> ProgramData:
    """Compare what is on the chain byte for byte; ChainRejected when it still differs after CONFIRM_TIMEOUT_S."""
    with trio.move_on_after(CONFIRM_TIMEOUT_S):
        while True:  # the server that answers may be behind the one that took the transactions
            found = await program_data(rpc, program)
            if found is not None and found.holds(elf):
                return found
            await trio.sleep(CONFIRM_POLL_MAX_S)
    raise ChainRejected(f"{program} does not hold the code that was sent: deploy again, or use another RPC server")


async def wait_for_slot_after(rpc: Rpc, slot: int) -> None:
    """Until the cluster is past `slot`; ChainUnreachable after CONFIRM_TIMEOUT_S."""
    with trio.move_on_after(CONFIRM_TIMEOUT_S):
        while (await rpc.time()).slot <= slot:  # noqa: ASYNC110 (a remote cluster has no event)
            await trio.sleep(CONFIRM_POLL_MAX_S)
        return
    raise ChainUnreachable(f"the cluster has not left slot {slot} for {CONFIRM_TIMEOUT_S:.0f} s")


async def _extend(rpc: Rpc, authority: Keypair, program: Pubkey, more: int) -> None:
    """By the older instruction where it still works, else by the newer; the fault of the older is the one to show."""
    try:
        await send_and_confirm(rpc, [loader.extend(authority.pubkey(), program, more, checked=False)], [authority])
    except TransactionFault as fault:
        try:
            await send_and_confirm(rpc, [loader.extend(authority.pubkey(), program, more, checked=True)], [authority])
        except TransactionFault:
            raise fault from None


def _offsets(elf: bytes) -> Sequence[int]:
    return range(0, len(elf), DEPLOY_CHUNK_BYTES)
