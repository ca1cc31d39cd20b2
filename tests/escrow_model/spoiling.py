"""What goes wrong: one thing in an honest transaction, or what strangers do to addresses of ours."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol.chain import JobAccount
from cyxnode.protocol.limits import AMOUNT_MAX
from svm_world import key, node_id

from .cast import (
    KEYS,
    NODES,
)
from .ledger import (
    Call,
    CloseToken,
    CreateToken,
    Donate,
    Ledger,
    Meta,
    Noise,
    Statements,
    Step,
    Transfer,
    associated,
    derived,
)

SPECIAL = tuple(
    bytes(address)
    for address in (
        layout.SLOT_HASHES_SYSVAR, layout.INSTRUCTIONS_SYSVAR, layout.SYSTEM_PROGRAM, layout.TOKEN_PROGRAM,
        layout.ED25519_PRECOMPILE,
    )
)  # fmt: skip


class Spoiler:
    """Spoils with the player's dice."""

    def __init__(self, ledger: Ledger, rng: Random) -> None:
        self.ledger, self.rng = ledger, rng

    def nuisance(self) -> tuple[Step, ...]:
        """What strangers do to addresses of ours, and owners to their own token accounts."""
        rng, program = self.rng, self.ledger.program
        which = rng.randrange(4)
        jobs = [a.body for a in self.ledger.accounts.values() if isinstance(a.body, JobAccount)]
        if which == 0:  # lamports for an address that may be made later
            node = node_id(key(rng.choice(NODES[:20])))
            address = rng.choice([derived("node", program, node), *(derived("job", program, j.job) for j in jobs)])
            return (Transfer(node_id(key("s0")), address, rng.choice([890_880, 10**7])),)
        rich = node_id(key("r0"))
        vaults = [derived("vault", program, j.job) for j in jobs] + [derived("stake_vault", program)]
        there = associated(rich, self.ledger.mint)
        if which == 1 and there in self.ledger.accounts:
            return (Donate(rich, rng.choice([v for v in vaults if v in self.ledger.accounts] or [there]), 3),)
        empty = [w for w in KEYS if associated(w, self.ledger.mint) in self.ledger.accounts
                 and not self.ledger.tokens_at(associated(w, self.ledger.mint))]  # fmt: skip
        return (CloseToken(rng.choice(empty)),) if empty else (CreateToken(node_id(key("s1"))),)

    def terms(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """The terms of an initialise, one of them at a bound or beyond it."""
        (call,) = steps
        assert isinstance(call, Call)
        at, value = self.rng.choice([
            (4, b"\xe9\x03"), (6, b"\x11\x27"), (8, bytes(32)), (40, bytes(32)), (72, bytes(8)),
            (72, (AMOUNT_MAX + 1).to_bytes(8, "little")), (80, ((1 << 40) + 1).to_bytes(8, "little")),
            (88, call.data[80:88]), (88, (1 << 41).to_bytes(8, "little")),
        ])  # fmt: skip
        return (replace(call, data=call.data[:at] + value + call.data[at + len(value) :]),)

    def spoil(self, steps: tuple[Step, ...], *, always: bool = False) -> tuple[Step, ...]:
        """Mostly as it was; else with one thing wrong."""
        if not always and self.rng.random() < 0.68:
            return steps
        call = steps[-1]
        assert isinstance(call, Call)
        spoil = self.rng.choice([
            self._other_account, self._other_account, self._swap, self._repeat, self._drop_or_add, self._flags,
            self._bytes, self._bytes, self._length,
        ])  # fmt: skip
        before = steps[-2] if len(steps) > 1 else None
        if isinstance(before, Statements):
            chance = self.rng.random()
            if chance < 0.45:
                return (*steps[:-2], *self._statements(before), call)
            if chance < 0.5:
                return (*steps[:-1], Noise(), call)
            if chance < 0.55:
                return (*steps[:-2], call)
        return (*steps[:-1], spoil(call))

    def _address(self) -> bytes:
        known = list(self.ledger.accounts)
        return self.rng.choice([*SPECIAL, self.rng.randbytes(32), *self.rng.choices(known, k=12)])

    def _metas(self, call: Call, at: int, address: bytes) -> Call:
        meta = call.metas[at]
        if meta.signer and address not in KEYS:
            meta = replace(meta, signer=False)
        return replace(call, metas=(*call.metas[:at], replace(meta, address=address), *call.metas[at + 1 :]))

    def _other_account(self, call: Call) -> Call:
        return self._metas(call, self.rng.randrange(len(call.metas)), self._address())

    def _swap(self, call: Call) -> Call:
        one, other = self.rng.randrange(len(call.metas)), self.rng.randrange(len(call.metas))
        first, second = call.metas[one].address, call.metas[other].address
        return self._metas(self._metas(call, one, second), other, first)

    def _repeat(self, call: Call) -> Call:
        return self._metas(call, self.rng.randrange(len(call.metas)), self.rng.choice(call.metas).address)

    def _drop_or_add(self, call: Call) -> Call:
        at = self.rng.randrange(len(call.metas))
        if self.rng.random() < 0.5:
            return replace(call, metas=call.metas[:at] + call.metas[at + 1 :])
        extra = call.metas[at] if self.rng.random() < 0.8 else Meta(self.rng.randbytes(32))
        return replace(call, metas=call.metas + (extra,) * self.rng.choice([1, 1, 16]))

    def _flags(self, call: Call) -> Call:
        at = self.rng.randrange(len(call.metas))
        meta = call.metas[at]
        less = replace(meta, signer=False) if meta.signer and self.rng.random() < 0.5 else replace(meta, writable=False)
        return replace(call, metas=(*call.metas[:at], less, *call.metas[at + 1 :]))

    def _bytes(self, call: Call) -> Call:
        data, rng = bytearray(call.data), self.rng
        if rng.random() < 0.5:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            at = rng.randrange(0, len(data), 8)
            edge = rng.choice([0, 1, AMOUNT_MAX, AMOUNT_MAX + 1, 2**64 - 1, 1 << 40, (1 << 40) + 1, self.ledger.unix_s])
            data[at or 8 : (at or 8) + 8] = edge.to_bytes(8, "little")[: max(0, len(data) - (at or 8))]
        return replace(call, data=bytes(data))

    def _length(self, call: Call) -> Call:
        data = call.data + b"\0" if self.rng.random() < 0.5 else call.data[:-1]
        return replace(call, data=data)

    def _statements(self, said: Statements) -> tuple[Step, ...]:
        """One entry less, twice, of a stranger, about something else, forged, or read from elsewhere."""
        rng, entries = self.rng, list(said.entries)
        if not entries:
            return (said,)
        at = rng.randrange(len(entries))
        entry = entries[at]
        how = rng.randrange(7)
        if how == 0:
            del entries[at]
        elif how == 1:
            entries.insert(rng.randrange(len(entries) + 1), entry)
        elif how == 2:
            entries[at] = replace(entry, signer=rng.choice(sorted(KEYS)))
        elif how == 3:
            message = bytearray(entry.message)
            message[rng.choice([0, 4, 5, 6, 20])] ^= 1
            entries[at] = replace(entry, message=bytes(message) if rng.random() < 0.8 else entry.message + b"!")
        elif how == 4:
            entries[at] = replace(entry, valid=False)
        elif how == 5:
            rng.shuffle(entries)
        else:
            foreign = replace(entry, within=False)
            return said, Statements((*entries[:at], foreign, *entries[at + 1 :]))
        return (Statements(tuple(entries)),)
