"""What a stranger can do to py-libp2p, as scenarios: each passes with all cures, and fails without the cure it names.

Run as a program with the name of a scenario: it runs it with all cures and then without that one, and prints one JSON
object {"cure": name, "cured": null | error, "uncured": null | error}. CYXNODE_FAST_GOSSIP chooses the path of gossip.
A process of its own, because the uncured library may take the whole event loop with it.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

from cyxnode.p2p import hardening, pulse
from cyxnode.p2p.host import libp2p_id
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import FRAME_MAX_BYTES
from cyxnode.protocol.ports import GossipMessage, GossipVerdict, Stream
from cyxnode.protocol.units import NodeId

ECHO, SINK, GOSSIP = "/cyx/1/echo", "/cyx/1/sink", "/meshsub/1.1.0"
SCENARIOS: dict[str, tuple[str, Callable[[], Awaitable[None]]]] = {}
Scenario = Callable[[Any, Any], Awaitable[None]]


def scenario(cure: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario between a victim that serves ECHO and a connected stranger."""

    def register(run: Scenario) -> Scenario:
        async def with_hosts() -> None:
            victim, stranger = Libp2pTransport(KeyPair(b"\1" * 32)), Libp2pTransport(KeyPair(b"\2" * 32))
            victim.serve(ECHO, echo)
            async with victim.run(), stranger.run():
                await stranger.connect(victim.addresses()[0])
                await run(victim, stranger)

        SCENARIOS[run.__name__] = (cure, with_hosts)
        return run

    return register


async def echo(_peer: NodeId, payload: bytes) -> bytes:
    return payload


async def still_serves(victim: Any, stranger: Any) -> None:
    assert await stranger.request(victim.node_id, ECHO, b"?", timeout_s=3) == b"?"


async def until(condition: Callable[[], object], seconds: float = 4.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- any state of any object
            await trio.sleep(0.02)


async def raw_stream(stranger: Any, victim: Any, protocol: str) -> Any:
    return await stranger._host.new_stream(libp2p_id(victim.node_id), [protocol])


def link(near: Any, far: Any) -> Any:
    """The yamux connection from `near` to `far`."""
    return near._network.connections[libp2p_id(far.node_id)][0].muxed_conn


def accept(_message: GossipMessage) -> GossipVerdict:
    return GossipVerdict.ACCEPT


@scenario("stream_errors")
async def handler_raises(victim: Any, stranger: Any) -> None:
    async def broken(_stream: Any) -> None:
        raise ValueError("a defect in any handler, ours or the library's")

    victim._host.set_stream_handler("/broken", broken)
    with suppress(Exception):  # it may be reset before it is written to
        await (await raw_stream(stranger, victim, "/broken")).write(b"x")
    await trio.sleep(0.3)
    await still_serves(victim, stranger)


@scenario("silent_peers")
async def peer_falls_silent(victim: Any, stranger: Any) -> None:
    pulse.PULSE_INTERVAL_S, pulse.CONNECTION_SILENCE_MAX_S = 0.2, 1.0

    async def say_nothing(_frame: bytes) -> None:
        await trio.lowlevel.checkpoint()

    await stranger.disconnect(victim.node_id)
    await until(lambda: not victim.connected())
    await stranger.connect(victim.addresses()[0])
    await still_serves(victim, stranger)
    mute = link(stranger, victim)
    mute._write_frame, mute.send_data_now, mute.send_now = say_nothing, lambda *_: True, lambda _frame: None
    await until(lambda: stranger.node_id not in victim.connected())
    await until(lambda: victim.node_id not in stranger.connected())
    await still_serves(victim, stranger)


@scenario("rpc_errors")
async def malformed_rpc(victim: Any, stranger: Any) -> None:
    async with victim.subscribe("t", accept) as messages:
        stream = await raw_stream(stranger, victim, GOSSIP)
        await stream.write(bytes([50]) + b"\xff" * 50)
        await trio.sleep(0.3)
        await still_serves(victim, stranger)
        await stranger.publish("t", b"from the one who sent garbage")
        with trio.move_on_after(1):
            raise AssertionError(f"took gossip of it: {await anext(messages)}")


async def send_message(victim: Any, stranger: Any, **fields: Any) -> None:
    from libp2p.pubsub.pb import rpc_pb2
    from libp2p.utils import encode_varint_prefixed

    rpc = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"x", topicIDs=["t"], seqno=b"12345678", **fields)])
    stream = await raw_stream(stranger, victim, GOSSIP)
    await stream.write(encode_varint_prefixed(rpc.SerializeToString()))
    await trio.sleep(0.3)


@scenario("message_errors")
async def malformed_key(victim: Any, stranger: Any) -> None:
    async with victim.subscribe("t", accept):
        await send_message(victim, stranger, from_id=b"\x12\x20" + b"\7" * 32, key=b"\xff" * 40, signature=b"x" * 64)
        await still_serves(victim, stranger)


@scenario("message_errors")
async def malformed_author(victim: Any, stranger: Any) -> None:
    async with victim.subscribe("t", accept):
        await send_message(victim, stranger, from_id=b"", key=b"\x08\x01\x12\x01\0", signature=b"x" * 64)
        await still_serves(victim, stranger)


@scenario("message_errors")
async def validator_raises(victim: Any, stranger: Any) -> None:
    def broken(_forwarder: Any, _message: Any) -> bool:
        raise KeyError("a defect of a validator")

    async with victim.subscribe("t", accept):
        victim._gossip._pubsub.set_topic_validator("t", broken, False)
        await until(lambda: "t" in stranger._gossip._pubsub.peer_topics)
        await stranger.publish("t", b"x")
        await trio.sleep(0.3)
        await still_serves(victim, stranger)


@scenario("whole_writes")
async def writes_are_cancelled(victim: Any, stranger: Any) -> None:
    async def drain(stream: Stream) -> None:
        while await stream.receive() is not None:
            pass

    victim.serve_stream(SINK, drain)
    before = link(stranger, victim)
    for attempt in range(40):
        stream = await stranger.open_stream(victim.node_id, SINK)
        with trio.move_on_after(0.0005 * (attempt % 8)):
            for _ in range(8):
                await stream.send(bytes(FRAME_MAX_BYTES))
        await stream.reset()
    await still_serves(victim, stranger)
    assert link(stranger, victim) is before, "the connection did not survive"


@scenario("window_wait")
async def reader_pauses(victim: Any, stranger: Any) -> None:
    read = 0

    async def pause(stream: Stream) -> None:
        nonlocal read
        await trio.sleep(6)
        while (frame := await stream.receive()) is not None:
            read += len(frame)

    victim.serve_stream(SINK, pause)
    stream = await stranger.open_stream(victim.node_id, SINK)
    for _ in range(8):
        await stream.send(bytes(FRAME_MAX_BYTES))
    await stream.close()
    await until(lambda: read == 8 * FRAME_MAX_BYTES)


@scenario("window_updates")
async def many_small_reads(victim: Any, stranger: Any) -> None:
    read, written = 0, 0

    async def drain(stream: Stream) -> None:
        nonlocal read
        while await stream.receive() is not None:
            read += 1
        await trio.sleep_forever()

    victim.serve_stream(SINK, drain)
    stream = await stranger.open_stream(victim.node_id, SINK)
    connection = link(victim, stranger)
    write_frame = connection._write_frame

    async def counted(data: bytes) -> None:
        nonlocal written
        written += 1
        await write_frame(data)

    connection._write_frame = counted
    for number in range(100):
        await stream.send(b"small")
        await until(lambda expected=number + 1: read == expected)  # type: ignore[misc]
    assert written < 20, f"{written} frames written by a reader of 100 frames"


@scenario("window_overrun")
async def window_is_ignored(victim: Any, stranger: Any) -> None:
    async def never_read(_stream: Stream) -> None:
        await trio.sleep_forever()

    victim.serve_stream(SINK, never_read)
    stream = (await raw_stream(stranger, victim, SINK)).muxed_stream
    with suppress(Exception):
        for _ in range(64):
            stream.send_window = 1 << 30
            await stream.write(bytes(FRAME_MAX_BYTES))
    await trio.sleep(0.5)
    held = sum(map(len, link(victim, stranger).stream_buffers.values())) if victim.connected() else 0
    assert held < 2 * 1024 * 1024, f"{held} unread bytes in memory"


@scenario("close_sockets")
async def host_is_cancelled(victim: Any, stranger: Any) -> None:
    third = Libp2pTransport(KeyPair(b"\3" * 32))

    async def short_life(task_status: Any) -> None:
        with trio.CancelScope() as scope:
            async with third.run():
                task_status.started(scope)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(short_life)
        await third.connect(victim.addresses()[0])
        await until(lambda: third.node_id in victim.connected())
        scope.cancel()
    await until(lambda: third.node_id not in victim.connected(), seconds=2)


@scenario("dial_wait")
async def dialling_is_quick(victim: Any, stranger: Any) -> None:
    from libp2p.peer.peerinfo import info_from_p2p_addr

    best = 9.0
    for _ in range(4):
        await stranger.disconnect(victim.node_id)
        await until(lambda: not victim.connected())
        start = trio.current_time()
        await stranger._host.connect(info_from_p2p_addr(victim._host.get_addrs()[0]))
        best = min(best, trio.current_time() - start)
    assert best < 0.24, f"{best:.3f} s"


@scenario("exclusive_port")
async def port_is_taken(victim: Any, stranger: Any) -> None:
    port = int(victim.addresses()[0].split("/")[4])
    try:
        async with Libp2pTransport(KeyPair(b"\3" * 32), port=port).run():
            raise AssertionError("two nodes listen on one port")
    except LocalError as error:
        assert error.field == "port" and error.fix


@scenario("control_bounds")
async def one_message_is_asked_for_many_times(victim: Any, stranger: Any) -> None:
    from libp2p.pubsub.pb import rpc_pb2
    from libp2p.utils import encode_varint_prefixed

    async with victim.subscribe("t", accept), stranger.subscribe("t", accept) as messages:
        await until(lambda: "t" in victim._gossip._pubsub.peer_topics)
        await victim.publish("t", bytes(50_000))
        await anext(messages)
        (name,) = victim._gossip._router.mcache.msgs
        rpc = rpc_pb2.RPC()
        rpc.control.iwant.add(messageIDs=[name] * 100)
        rpc.control.prune.add(topicID="unknown" * 10, backoff=2**40)
        answered = count_calls(victim._gossip._router, "send_rpc")
        await (await raw_stream(stranger, victim, GOSSIP)).write(encode_varint_prefixed(rpc.SerializeToString()))
        await until(lambda: answered)
        assert sum(rpc.ByteSize() for _, rpc, *_ in answered) < 2 * 50_000
        assert set(victim._gossip._router.back_off) <= {"t"}
        await still_serves(victim, stranger)


def count_calls(owner: Any, name: str) -> list[Any]:
    """The arguments of every later call of a method, in a list that grows."""
    calls: list[Any] = []
    method = getattr(owner, name)

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return method(*arguments, **keywords)

    setattr(owner, name, counted)
    return calls


@scenario("queues")
async def burst_of_gossip(victim: Any, stranger: Any) -> None:
    heard = 0
    async with victim.subscribe("t", accept) as messages:
        await until(lambda: "t" in stranger._gossip._pubsub.peer_topics)
        for number in range(300):
            await stranger.publish("t", number.to_bytes(2, "big"))
        with trio.move_on_after(4):
            async for _ in messages:
                heard += 1
                if heard == 300:
                    break
    assert heard == 300, f"{heard} of 300 arrived"


@scenario("sender_record")
async def records_in_messages(victim: Any, stranger: Any) -> None:
    from libp2p.pubsub import utils

    verified, original = 0, utils.consume_envelope

    def counted(*arguments: Any) -> Any:
        nonlocal verified
        verified += 1
        return original(*arguments)

    utils.consume_envelope = counted  # type: ignore[assignment]
    try:
        async with victim.subscribe("t", accept) as messages:
            await until(lambda: "t" in stranger._gossip._pubsub.peer_topics)
            for number in range(20):
                await stranger.publish("t", bytes([number]))
                await anext(messages)
    finally:
        utils.consume_envelope = original
    assert verified == 0, f"{verified} records verified"


@scenario("quiet_logs")
async def library_logs(victim: Any, stranger: Any) -> None:
    await stranger.disconnect(victim.node_id)
    assert not logging.getLogger().handlers, "the library configured the root logger"


def outcome(run: Callable[[], Awaitable[None]], without: tuple[str, ...]) -> str | None:
    """Run a scenario; the error as text, or None when it passed."""

    async def bounded() -> None:
        with trio.fail_after(25):
            await run()

    hardening.apply(without=without)
    try:
        trio.run(bounded)
    except BaseException as error:
        return repr(error)[:300]
    finally:
        hardening.revert()
        for handler in logging.getLogger().handlers[:]:
            logging.getLogger().removeHandler(handler)
    return None


def main() -> None:
    warnings.simplefilter("ignore")
    cure, run = SCENARIOS[sys.argv[1]]
    print(json.dumps({"cure": cure, "cured": outcome(run, ()), "uncured": outcome(run, (cure,))}))


if __name__ == "__main__":
    main()
