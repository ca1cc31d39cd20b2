"""The `Chain` port on any Solana cluster: accounts decoded, wishes turned into confirmed transactions."""

from __future__ import annotations

from collections.abc import Sequence

from solders.instruction import Instruction as SolanaInstruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from ..protocol.chain import (
    Balance,
    ChainConfig,
    ChainTime,
    CloseJob,
    Instruction,
    JobAccount,
    NodeAccount,
    RefundExpired,
    Settle,
    WithdrawEarned,
    WithdrawStake,
)
from ..protocol.errors import ChainRejected, ChainUnreachable, LocalError, RemoteError
from ..protocol.identity import KeyPair
from ..protocol.limits import SLOT_HASHES_MAX
from ..protocol.units import JobId, MicroCyx, NodeId, base58
from .escrow_instructions import PAYING, ROOM_FOR_ACCOUNTS_SIGNATURES, create_associated, encode
from .escrow_layout import (
    ED25519_PRECOMPILE,
    ERRORS,
    NODE_BYTES,
    NODE_TAG,
    SLOT_HASHES_SYSVAR,
    TOKEN_PROGRAM,
    associated_token_address,
    config_address,
    decode_config,
    decode_job,
    decode_node,
    job_address,
    node_address,
)
from .past_settlements import read_settlements
from .rpc import AccountData, HistoryRpc, TransactionFault
from .sender import send_and_confirm
from .token import read_token_account
from .transaction import instruction_error


class ChainClient:
    """The escrow program `program` (32 bytes) as seen and signed by `key`, through `rpc`."""

    def __init__(self, rpc: HistoryRpc, key: KeyPair, program: bytes) -> None:
        self._rpc = rpc
        self._keypair = Keypair.from_seed(key.seed)
        self._signer = key.node_id
        self._program = Pubkey.from_bytes(program)
        self._config: ChainConfig | None = None

    @property
    def program(self) -> bytes:
        """Address of the escrow program."""
        return bytes(self._program)

    @property
    def signer(self) -> NodeId:
        """Whose key signs."""
        return self._signer

    async def config(self) -> ChainConfig:
        """The Config account, read once: it does not change. LocalError when the program is not initialised there."""
        if self._config is None:
            account = await self._rpc.get_account(bytes(config_address(self._program)))
            if account is None:
                text = f"no initialised escrow program {base58(self.program)} on this cluster"
                raise LocalError(text, field="program", fix="check the program id and the RPC address")
            self._config = decode_config(self._owned(account))
        return self._config

    async def time(self) -> ChainTime:
        """Slot and Unix seconds of the Clock sysvar."""
        return await self._rpc.time()

    async def node(self, node: NodeId) -> NodeAccount | None:
        """The Node account of a key."""
        account = await self._rpc.get_account(bytes(node_address(self._program, node)))
        return decode_node(self._owned(account)) if account else None

    async def nodes(self) -> list[NodeAccount]:
        """All Node accounts. One that cannot be decoded is left out: it cannot be seated either."""
        found: list[NodeAccount] = []
        for _, account in await self._rpc.get_program_accounts(self.program, tag=NODE_TAG, size=NODE_BYTES):
            try:
                found.append(decode_node(self._owned(account)))
            except RemoteError:
                continue
        return found

    async def job(self, job: JobId) -> JobAccount | None:
        """The Job account; None before it is opened and after it is closed."""
        account = await self._rpc.get_account(bytes(job_address(self._program, job)))
        return decode_job(self._owned(account)) if account else None

    def derivations(self, job: JobId) -> int:
        """See the port."""
        seeds = ([b"job", job], [b"vault", job])
        return sum(256 - Pubkey.find_program_address(one, self._program)[1] for one in seeds)

    async def settlements(self, job: JobId) -> list[Settle]:
        """See the port."""
        return await read_settlements(self._rpc, self.program, job)

    async def slot_hash(self, slot: int) -> bytes | None:
        """The hash of `slot`; None when it is older than SLOT_HASHES_MAX slots, skipped, or still to come."""
        account = await self._rpc.get_account(bytes(SLOT_HASHES_SYSVAR))
        return find_slot_hash(account.data, slot) if account else None

    async def balance(self, owner: bytes) -> Balance:
        """Lamports, and micro-CYX in the associated token account."""
        config = await self.config()
        tokens = associated_token_address(Pubkey.from_bytes(owner), Pubkey.from_bytes(config.mint))
        wallet, account = await self._rpc.get_accounts([owner, bytes(tokens)])
        held = read_token_account(account.data) if account and account.owner == bytes(TOKEN_PROGRAM) else None
        return Balance(wallet.lamports if wallet else 0, MicroCyx(held.amount if held else 0))

    async def submit(self, instruction: Instruction) -> str:
        """See the port. Reads the accounts that the instruction needs, then lands one transaction."""
        config = await self.config()
        job: JobAccount | None = None
        payout: Pubkey | None = None
        if isinstance(instruction, Settle | CloseJob | RefundExpired):
            job = await self.job(instruction.job)
            if job is None:
                raise ChainRejected(f"job {base58(instruction.job)} is not on the chain: closed, or never opened")
        if isinstance(instruction, WithdrawStake | WithdrawEarned):
            payout = await self._payout(instruction.node)
        if isinstance(instruction, Settle) and instruction.verdict in PAYING:
            payout = await self._payout(instruction.worker)
            if job is not None and job.m > ROOM_FOR_ACCOUNTS_SIGNATURES:
                await self._create_missing_accounts(config, payout)
        signer = self._keypair.pubkey()
        wished = encode(instruction, signer=signer, program=self._program, config=config, job=job, payout=payout)
        try:
            return await send_and_confirm(self._rpc, wished, [self._keypair])
        except TransactionFault as fault:
            raise self._explained(fault, wished) from fault

    async def _payout(self, node: NodeId) -> Pubkey:
        account = await self.node(node)
        if account is None:
            raise ChainRejected(f"node {base58(node)} is not registered (fix: register it with a stake first)")
        return Pubkey.from_bytes(account.payout)

    async def _create_missing_accounts(self, config: ChainConfig, payout: Pubkey) -> None:
        """A settlement with many signatures has no room to create its destinations: they are created beforehand."""
        mint, owners = Pubkey.from_bytes(config.mint), (payout, Pubkey.from_bytes(config.treasury))
        found = await self._rpc.get_accounts([bytes(associated_token_address(owner, mint)) for owner in owners])
        payer = self._keypair.pubkey()
        missing = [create_associated(payer, o, mint) for o, there in zip(owners, found, strict=True) if there is None]
        if missing:
            await send_and_confirm(self._rpc, missing, [self._keypair])

    def _owned(self, account: AccountData) -> bytes:
        if account.owner != self.program:
            raise RemoteError("an account of the escrow program has another owner")
        return account.data

    def _explained(self, fault: TransactionFault, instructions: Sequence[SolanaInstruction]) -> ChainRejected:
        found = instruction_error(fault.error)
        if found is None or not 0 <= found[0] < len(instructions):
            return fault
        index, code = found
        program = instructions[index].program_id
        if program == ED25519_PRECOMPILE:
            text = "a committee signature does not verify (fix: collect the signatures again)"
            return ChainRejected(text, logs=fault.logs)
        if program != self._program or code is None:
            return ChainRejected(str(fault), code=code, logs=fault.logs)
        return ChainRejected(ERRORS.get(code, str(fault)), code=code, logs=fault.logs)


def find_slot_hash(data: bytes, slot: int) -> bytes | None:
    """Look a slot up in the SlotHashes sysvar: u64 count, then (u64 slot, 32-byte hash), newest first."""
    if len(data) < 8:
        raise ChainUnreachable("the SlotHashes sysvar is unreadable")
    count = min(int.from_bytes(data[:8], "little"), SLOT_HASHES_MAX, (len(data) - 8) // 40)
    for at in range(8, 8 + 40 * count, 40):
        if int.from_bytes(data[at : at + 8], "little") == slot:
            return data[at + 8 : at + 40]
    return None
