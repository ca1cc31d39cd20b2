"""The local chain: LiteSVM, the real Solana runtime, with slots, blockhashes, history and a disk around it.

LiteSVM knows one blockhash that moves by hand, no slots and no size limit. This object adds what clients rely on:
400 ms slots that somebody ticks with `advance`; a blockhash per slot, of which the last BLOCKHASHES_MAX are accepted
and each accepts a message once (as on Solana, where a message that landed is refused as AlreadyProcessed for as long
as its blockhash lives); SlotHashes with the last SLOT_HASHES_MAX slots, each hash drawn at the end of its slot so
that nobody can know it within; the 1232-byte limit. Everything is synchronous; entropy and time are arguments.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from solders.account import Account
from solders.clock import Clock
from solders.hash import Hash
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, SimulatedTransactionInfo, TransactionMetadata

from ..protocol.errors import LocalError
from ..protocol.limits import BLOCKHASHES_MAX, SLOT_HASHES_MAX, TRANSACTION_MAX_BYTES
from .addresses import local_keypair
from .cluster_store import ClusterStore
from .escrow_layout import SYSTEM_PROGRAM, TOKEN_PROGRAM
from .history import History, TokenBalance, TransactionRecord
from .token import read_token_account
from .transaction import TransactionRefused, parse_transaction, transaction_addresses

SLOTS_PER_EPOCH = 432_000
FAUCET_LAMPORTS = 500_000_000 * 10**9
_RENT_EXEMPT_EPOCH = 2**64 - 1


class LocalCluster:
    """One chain in this process. `entropy(n)` gives n random bytes; `path` is where it survives a restart."""

    def __init__(self, entropy: Callable[[int], bytes], *, now_unix_s: int, path: Path | None = None) -> None:
        self._entropy = entropy
        self._svm = LiteSVM().with_mainnet_features().with_blockhash_check(False).with_transaction_history(0)
        self.store = ClusterStore(path) if path is not None else None
        self._history = History()
        self._sequence = 0
        self._blockhashes: OrderedDict[bytes, set[bytes]] = OrderedDict()
        self._slot_hashes: deque[tuple[int, Hash]] = deque(maxlen=SLOT_HASHES_MAX)
        self._slot_times: deque[tuple[int, int]] = deque(maxlen=SLOT_HASHES_MAX)
        self._slot_signatures: list[bytes] = []
        self._last_digest = bytes(32)
        self._broken = False
        self.slot = 0
        self.unix_s = now_unix_s
        self.after_transaction: Callable[[TransactionRecord], None] = lambda record: None
        """Told of each executed transaction: for whoever audits the chain from within the process."""
        self.after_slot: Callable[[], None] = lambda: None
        """Told of each new slot."""
        self.faucet: Keypair = local_keypair("faucet")
        self.genesis_hash = self._begin() if self.store is None else self._load(self.store)
        self.advance(now_unix_s)

    # time

    def advance(self, now_unix_s: int) -> None:
        """End the slot: draw its hash, publish it in SlotHashes, start the next slot with a new blockhash."""
        seed = b"".join((b"cyx/slot", self._last_digest, self.slot.to_bytes(8, "little"), self._entropy(32)))
        digest = sha256(seed + b"".join(self._slot_signatures)).digest()
        self._slot_signatures.clear()
        self._slot_hashes.appendleft((self.slot, Hash(digest)))
        self._slot_times.append((self.slot, self.unix_s))
        if self.store is not None:
            self.store.put_slot(self.slot, digest, self.unix_s, self.slot - SLOT_HASHES_MAX)
        self._last_digest = digest
        self._blockhashes[_blockhash(digest)] = set()
        if len(self._blockhashes) > BLOCKHASHES_MAX:
            self._blockhashes.popitem(last=False)
        self.slot += 1
        self.unix_s = max(self.unix_s, now_unix_s)
        self._svm.set_clock(Clock(self.slot, 0, self.epoch, self.epoch, self.unix_s))
        self._svm.set_slot_hashes(list(self._slot_hashes))
        self.after_slot()

    @property
    def epoch(self) -> int:
        """Number of the epoch: counted, but nothing happens at its end."""
        return self.slot // SLOTS_PER_EPOCH

    def block_time(self, slot: int) -> int | None:
        """Unix seconds of one of the last SLOT_HASHES_MAX slots."""
        if slot == self.slot:
            return self.unix_s
        return next((unix_s for number, unix_s in reversed(self._slot_times) if number == slot), None)

    @property
    def first_slot(self) -> int:
        """The oldest slot whose hash and time are known."""
        return self._slot_times[0][0]

    def blockhash_of(self, slot: int) -> bytes | None:
        """The blockhash that a slot ended with; None unless it is one of the last SLOT_HASHES_MAX finished ones."""
        return next((_blockhash(bytes(digest)) for number, digest in self._slot_hashes if number == slot), None)

    def latest_blockhash(self) -> tuple[bytes, int]:
        """The newest blockhash, and the last slot in which it is accepted."""
        return next(reversed(self._blockhashes)), self.slot + BLOCKHASHES_MAX - 1

    def is_blockhash_valid(self, blockhash: bytes) -> bool:
        """Whether a transaction on `blockhash` could land now."""
        return blockhash in self._blockhashes

    # accounts

    def account(self, address: bytes) -> Account | None:
        """An account, or None where there are no lamports."""
        found = self._svm.get_account(Pubkey.from_bytes(address))
        return found if found is not None and found.lamports else None

    def program_accounts(self, program: bytes) -> list[tuple[Pubkey, Account]]:
        """All accounts that `program` owns."""
        owned = self._svm.get_program_accounts(Pubkey.from_bytes(program))
        return [(address, account) for address, account in owned if account.lamports]

    def rent(self, size: int) -> int:
        """Lamports that exempt an account of `size` bytes from rent."""
        return self._svm.minimum_balance_for_rent_exemption(size)

    # transactions

    def simulate(
        self, raw: bytes, *, verify: bool = True, check_blockhash: bool = True
    ) -> SimulatedTransactionInfo | TransactionRefused:
        """Execute without keeping anything; a transaction that would fail gives the refusal as a value."""
        try:
            transaction, _ = self._admit(raw, check_blockhash=check_blockhash)
        except TransactionRefused as refusal:
            return refusal
        self._svm.with_sigverify(verify)
        try:
            result = self._svm.simulate_transaction(transaction)
        finally:
            self._svm.with_sigverify(True)
        return _refusal(result) if isinstance(result, FailedTransactionMetadata) else result

    def send(self, raw: bytes, *, preflight: bool = True) -> str:
        """Execute; the result is on disk when the signature (base58) is returned.

        Raises TransactionRefused when it is malformed, stale or a duplicate, or when the preflight fails: nothing
        has happened then. Without preflight a failing transaction lands, pays its fee and has a status.
        """
        if self._broken:
            raise LocalError("the last write failed", field="data dir", fix="free some disk space and restart")
        transaction, seen = self._admit(raw)
        if preflight:
            simulated = self._svm.simulate_transaction(transaction)
            if isinstance(simulated, FailedTransactionMetadata):
                raise _refusal(simulated)
        addresses, writable = transaction_addresses(transaction, self.account)
        before = self._balances(addresses)
        result = self._svm.send_transaction(transaction)
        after = self._balances(addresses)
        if isinstance(result, FailedTransactionMetadata) and before[0][0] == after[0][0]:
            raise _refusal(result)
        seen.add(_message_digest(raw, transaction))
        self._slot_signatures.append(bytes(transaction.signatures[0]))
        record = self._record(raw, transaction, result, addresses, before, after)
        self._keep(record, writable)
        self.after_transaction(record)
        return record.signature

    def transaction(self, signature: str) -> TransactionRecord | None:
        """An executed transaction of the bounded history."""
        return self._history.get(signature)

    def transactions_of(self, address: bytes, *, before: str | None = None) -> list[TransactionRecord]:
        """Executed transactions that name `address`, newest first; those before another one, which need not name it.

        None at all when the other one is not remembered, as on Solana.
        """
        records = list(self._history.of_address(address))
        if before is None:
            return records
        place = self._history.sequence_of(before)
        if place is None:
            return []
        return [one for one in records if (self._history.sequence_of(one.signature) or 0) < place]

    def transactions_in(self, slot: int) -> list[TransactionRecord]:
        """Executed transactions of a slot, in their order, as far as the bounded history reaches."""
        return [record for record in self._history if record.slot == slot]

    @property
    def transaction_count(self) -> int:
        """Transactions executed since genesis."""
        return self._sequence

    def close(self) -> None:
        """Release the data directory."""
        if self.store is not None:
            self.store.close()

    # inside

    def _begin(self) -> bytes:
        genesis = sha256(b"cyx/genesis" + self._entropy(32)).digest()
        endowment = Account(FAUCET_LAMPORTS, b"", SYSTEM_PROGRAM, False, _RENT_EXEMPT_EPOCH)
        self._svm.set_account(self.faucet.pubkey(), endowment)
        self._last_digest = genesis
        if self.store is not None:
            self.store.begin(genesis, {self.faucet.pubkey(): endowment})
        return genesis

    def _load(self, store: ClusterStore) -> bytes:
        genesis = store.genesis()
        if genesis is None:
            return self._begin()
        self._last_digest = genesis
        for slot, digest, unix_s in store.slots():
            self._slot_hashes.appendleft((slot, Hash(digest)))
            self._slot_times.append((slot, unix_s))
            self._last_digest, self.slot, self.unix_s = digest, slot + 1, max(self.unix_s, unix_s)
        self._svm.set_clock(Clock(self.slot, 0, self.epoch, self.epoch, self.unix_s))
        # A program needs its program data first.
        for address, account in sorted(store.accounts(), key=lambda item: item[1].executable):
            self._svm.set_account(address, account)
        for sequence, record in store.transactions():
            self._history.add(sequence, record)
            self._sequence = sequence + 1
        return genesis

    def _admit(self, raw: bytes, *, check_blockhash: bool = True) -> tuple[VersionedTransaction, set[bytes]]:
        if len(raw) > TRANSACTION_MAX_BYTES:
            raise TransactionRefused(f"transaction has {len(raw)} bytes, more than {TRANSACTION_MAX_BYTES}", "")
        transaction = parse_transaction(raw)
        seen = self._blockhashes.get(bytes(transaction.message.recent_blockhash))
        if seen is None:
            if check_blockhash:
                raise TransactionRefused("Blockhash not found", "BlockhashNotFound")
            seen = set()
        if _message_digest(raw, transaction) in seen:
            raise TransactionRefused("This transaction has already been processed", "AlreadyProcessed")
        return transaction, seen

    def _balances(self, addresses: list[Pubkey]) -> list[tuple[int, TokenBalance | None]]:
        balances: list[tuple[int, TokenBalance | None]] = []
        for index, address in enumerate(addresses):
            account = self._svm.get_account(address)
            held = read_token_account(account.data) if account and account.owner == TOKEN_PROGRAM else None
            token = TokenBalance(index, held.mint, held.owner, held.amount) if held else None
            balances.append((account.lamports if account else 0, token))
        return balances

    def _record(
        self,
        raw: bytes,
        transaction: VersionedTransaction,
        result: TransactionMetadata | FailedTransactionMetadata,
        addresses: list[Pubkey],
        before: list[tuple[int, TokenBalance | None]],
        after: list[tuple[int, TokenBalance | None]],
    ) -> TransactionRecord:
        failed = isinstance(result, FailedTransactionMetadata)
        meta = result.meta() if isinstance(result, FailedTransactionMetadata) else result
        return TransactionRecord(
            signature=str(transaction.signatures[0]),
            slot=self.slot,
            unix_s=self.unix_s,
            error=json.dumps(json.loads(result.to_json())["err"]) if failed else "",
            fee=meta.fee(),
            units=meta.compute_units_consumed(),
            raw=raw,
            logs=meta.logs(),
            addresses=[bytes(address) for address in addresses],
            lamports_before=[lamports for lamports, _ in before],
            lamports_after=[lamports for lamports, _ in after],
            tokens_before=[token for _, token in before if token],
            tokens_after=[token for _, token in after if token],
        )

    def _keep(self, record: TransactionRecord, writable: list[Pubkey]) -> None:
        sequence, self._sequence = self._sequence, self._sequence + 1
        forgotten = self._history.add(sequence, record)
        if self.store is None:
            return
        try:
            accounts = {address: self.account(bytes(address)) for address in writable}
            self.store.put_transaction(sequence, record, accounts)
            if forgotten is not None:
                self.store.forget_transaction(forgotten)
        except BaseException:
            self._broken = True
            raise


def _blockhash(digest: bytes) -> bytes:
    return sha256(b"cyx/blockhash" + digest).digest()


def _message_digest(raw: bytes, transaction: VersionedTransaction) -> bytes:
    return sha256(raw[1 + 64 * len(transaction.signatures) :]).digest()


def _refusal(result: FailedTransactionMetadata) -> TransactionRefused:
    error = json.loads(result.to_json())["err"]
    return TransactionRefused("", error, tuple(result.meta().logs()), result.meta().compute_units_consumed())
