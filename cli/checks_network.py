"""What `cyxnode doctor` asks of the chain and of peers: RPC, genesis, clock, wallet, bootstrap nodes.

The chain is any `HistoryRpc`, the network any `Transport`: the checks run in simulated worlds as they do on real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from statistics import median

import msgspec
import trio

from .. import __version__
from ..ledger.chain_client import ChainClient
from ..ledger.rpc import HistoryRpc
from ..protocol.envelope import Signed, open_any, open_as, seal
from ..protocol.errors import CyxError
from ..protocol.identity import KeyPair
from ..protocol.limits import CAPABILITY_INTERVAL_MS, CLOCK_SKEW_MS, RPC_SLOW_S
from ..protocol.messages import Capability, PeersAnswer, PeersRequest
from ..protocol.ports import Clock, Transport
from ..protocol.standing import Standing, standing, until_text
from ..protocol.units import NodeId, base58, format_cyx, format_sol
from ..scheduler.wire import PEERS
from .checks_split import one_network
from .checkup import Finding, failure, fine, warning

LAMPORTS_LOW = 10_000_000
"""Some hundred settlements' fees."""
_DIAL_S = 8.0

OpenRpc = Callable[[], AbstractAsyncContextManager[HistoryRpc]]
OpenTransport = Callable[[KeyPair], AbstractAsyncContextManager[Transport]]


@dataclass(frozen=True, slots=True)
class ChainChecks:
    """The questions to one chain. `node` is whose wallet is looked at, None while there is no key."""

    open_rpc: OpenRpc
    program: bytes
    clock: Clock
    node: NodeId | None

    async def rpc(self) -> Sequence[Finding]:
        """Whether and how quickly it answers."""
        async with self.open_rpc() as rpc:
            await rpc.time()
            begun = trio.current_time()
            now = await rpc.time()
            took_s = trio.current_time() - begun
        text = f"slot {now.slot}, answered in {took_s * 1000:.0f} ms"
        if took_s > RPC_SLOW_S:
            return [warning(text, "choose an RPC server that is nearer or less busy: --rpc URL")]
        return [fine(text)]

    async def genesis(self) -> Sequence[Finding]:
        """Whether the escrow program was set up for this very cluster."""
        async with self.open_rpc() as rpc:
            config = await ChainClient(rpc, KeyPair.generate(), self.program).config()
            found = await rpc.genesis_hash()
        if found != config.genesis:
            text = f"the program was set up for genesis {base58(config.genesis)}, the cluster's is {base58(found)}"
            return [failure(text, "give the --rpc and the --program of the same network")]
        return [fine(f"genesis {base58(found)}, as the escrow program says")]

    async def time(self) -> Sequence[Finding]:
        """This machine's clock beside the chain's, which counts seconds and may lag by a few."""
        async with self.open_rpc() as rpc:
            chain_ms = (await rpc.time()).unix_s * 1000
        return [_skew(self.clock.unix_ms() - chain_ms, "the chain's")]

    async def wallet(self) -> Sequence[Finding]:
        """Money for fees and stake, and how the node stands."""
        if self.node is None:
            return [
                warning("there is no key yet, so no wallet", "cyxnode keygen, then send SOL and CYX to its address")
            ]
        async with self.open_rpc() as rpc:
            chain = ChainClient(rpc, KeyPair.generate(), self.program)
            config, held, now = await chain.config(), await chain.balance(self.node), await chain.time()
            account = await chain.node(self.node)
        address = base58(self.node)
        found = [_fees(held.lamports, address)]
        if account is None:
            text = (
                f"not registered; {format_cyx(held.micro_cyx)} CYX are there, {format_cyx(config.minimum_stake)} needed"
            )
            enough = held.micro_cyx >= config.minimum_stake
            fix = "start `cyxnode run`" if enough else f"send CYX to {address} (local chain: cyxnode chain airdrop)"
            return [*found, (warning if enough else failure)(text, fix)]
        state = standing(account, config, now.unix_s)
        text = f"{state.value}, stake {format_cyx(account.stake)} CYX, earned {format_cyx(account.earned)} CYX"
        return [*found, _standing(state, text, account.unbonding_at_s, now.unix_s)]


def _fees(lamports: int, address: str) -> Finding:
    text = f"{format_sol(lamports)} SOL for fees"
    fix = f"send SOL to {address} (local chain: cyxnode chain airdrop)"
    if not lamports:
        return failure(text, fix)
    return warning(text, fix) if lamports < LAMPORTS_LOW else fine(text)


def _standing(state: Standing, text: str, unbonding_at_s: int, now_s: int) -> Finding:
    match state:
        case Standing.ACTIVE:
            return fine(text)
        case Standing.BELOW_MINIMUM:
            return warning(text, "add stake: cyxnode wallet stake AMOUNT")
        case Standing.UNBONDING:
            when = until_text(unbonding_at_s, now_s)
            return failure(f"{text}, until {when}", "to serve again: cyxnode wallet stake 0 --reactivate")
        case Standing.WITHDRAWABLE | Standing.WITHDRAWN:
            return failure(text, "to serve again: cyxnode wallet stake AMOUNT --reactivate")
        case Standing.RETIRED:
            return failure(text, "this key was convicted of equivocation: use another (cyxnode keygen --name OTHER)")


def _skew(ahead_ms: float, whose: str, slack_ms: int = CLOCK_SKEW_MS // 3) -> Finding:
    text = f"this clock is {abs(ahead_ms) / 1000:.1f} s {'ahead of' if ahead_ms > 0 else 'behind'} {whose}"
    fix = "keep it in step: timedatectl set-ntp true (or start chrony)"
    if abs(ahead_ms) > CLOCK_SKEW_MS:
        return failure(f"{text}: messages are refused beyond {CLOCK_SKEW_MS // 1000} s", fix)
    return warning(text, fix) if abs(ahead_ms) > slack_ms else fine(text)


@dataclass(frozen=True, slots=True)
class PeerChecks:
    """Dials bootstrap addresses as a stranger, and asks each whom it knows."""

    open_transport: OpenTransport
    clock: Clock
    genesis: Callable[[], AbstractAsyncContextManager[bytes]]
    addresses: Callable[[], tuple[str, ...]]

    async def peers(self) -> Sequence[Finding]:
        """Each address: whether it answers, how quickly, with which version; our clock beside the nodes'; and whether
        all of it is one network."""
        addresses, key = self.addresses(), KeyPair.generate()
        if not addresses:
            return [
                warning("no bootstrap address is known", "give --bootstrap ADDRESS, unless peers are on disk already")
            ]
        found: dict[str, Finding] = {}
        skews: list[float] = []
        records: list[Signed[msgspec.Struct]] = []
        async with self.genesis() as genesis, self.open_transport(key) as transport:

            async def ask(address: str) -> None:
                found[address] = await self._ask(transport, key, genesis, address, skews, records)

            async with trio.open_nursery() as nursery:
                for address in addresses:
                    nursery.start_soon(ask, address)
        answered = [found[address] for address in addresses]
        if all(one.fix for one in answered):
            answered.append(
                failure("nobody of the list answers", "see whether this machine can dial out; ask for new addresses")
            )
        return [*answered, *([_skew(median(skews), "the peers'")] if skews else []), *one_network(records)]

    async def _ask(
        self,
        transport: Transport,
        key: KeyPair,
        genesis: bytes,
        address: str,
        skews: list[float],
        records: list[Signed[msgspec.Struct]],
    ) -> Finding:
        begun = trio.current_time()
        try:
            with trio.fail_after(_DIAL_S):
                node = await transport.connect(address)
                question = seal(key, genesis, PeersRequest(capability=b""))
                raw = await transport.request(node, PEERS, question, timeout_s=_DIAL_S)
            answer = open_as(raw, genesis, PeersAnswer)
        except (CyxError, trio.TooSlowError) as error:
            fix = "see whether it still lives; leave it out of the list if not"
            return warning(f"{address} does not answer: {error or 'too slow'}"[:300], fix)
        told = [open_any(raw, genesis) for raw in answer.message.records]
        records += told
        own, known = _own_record(told, node), len({one.sender for one in told})
        text = f"{address} answered in {(trio.current_time() - begun) * 1000:.0f} ms and knows {known} nodes"
        if own is None:
            return fine(text)
        skews.append(_ahead_ms(self.clock.unix_ms(), own.sent_at_ms))
        text += f", version {own.version}"
        if own.version != __version__:
            return warning(f"{text}; this is {__version__}", "update the older of both")
        return fine(text)


def _own_record(told: Sequence[Signed[msgspec.Struct]], node: NodeId) -> Capability | None:
    """What the peer offers: its record comes first."""
    first = told[0].message if told and told[0].sender == node else None
    return first if isinstance(first, Capability) else None


def _ahead_ms(now_ms: int, sent_at_ms: int) -> float:
    """How far we are ahead of a peer at least: its record may honestly be up to CAPABILITY_INTERVAL_MS old."""
    ahead_ms = now_ms - sent_at_ms
    return ahead_ms if ahead_ms < 0 else max(0, ahead_ms - CAPABILITY_INTERVAL_MS)
