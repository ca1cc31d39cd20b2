"""Whether this node works in the place of another, when a hand-over names it (DESIGN 5).

It promised so with its bid, but that was a while ago: a node that would not bid today does not start. Then its lease
lapses, and the next in the ranking is asked.
"""

from __future__ import annotations

from ..protocol.units import MicroCyx
from .auction_voting import Awarded
from .context import NodeContext
from .pricing import Declined, quote
from .room import Rooms


async def why_not(context: NodeContext, rooms: Rooms, awarded: Awarded) -> str:
    """Why we do not take over, or ''. `awarded`, already in its room, is that with our price."""
    me, announce = context.wire.me, awarded.announce.message
    account = (await context.registry.nodes()).get(me)
    if account is None or account.unbonding_at_s:
        return "not registered, or unbonding"
    others = rooms.committed_price(me) - awarded.certified.price
    quoted = quote(
        announce,
        context.offer(),
        running=rooms.running(),
        free_stake=MicroCyx(account.stake - others),
        seconds_left=announce.work_deadline_s - context.wire.clock.unix_ms() // 1000,
    )
    return quoted.hint if isinstance(quoted, Declined) else ""
