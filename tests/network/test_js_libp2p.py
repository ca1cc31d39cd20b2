"""A node of another implementation takes part: identify, ping, gossip both ways, presence records by the document."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.bundle import pack
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.messages import Capability, Heartbeat
from cyxnode.protocol.ports import GossipMessage, GossipVerdict
from gossip_world import key, until

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).with_name("js_libp2p")
TOPIC, GENESIS = "cyx/1/presence/0000000000000000", bytes(range(32))
HEARTBEAT = Heartbeat(
    sequence=2**40 + 1,
    sent_at_ms=1_800_000_000_000,
    status="busy",
    queue_length=2,
    running=1,
    load_ppm=750_000,
    shards=4,
    membership_digest=bytes(range(32, 64)),
)
CAPABILITY = Capability(
    sequence=3,
    sent_at_ms=1_800_000_000_000,
    execution_class=bytes(32),
    device="cpu",
    memory_mb=32_768,
    sandbox="bubblewrap",
    rate_micro_per_s=100,
    region="eu",
    datasets=(),
    version="0.1.0",
    verifier=True,
    addresses=("/ip4/127.0.0.1/tcp/4001/p2p/" + peer_id_text(key(1).node_id),),
    hardware={"cpu": "8 cores", "gpu": "none"},
)


@pytest.fixture(scope="module")
def prepared() -> Path:
    """The folder with the packages; skips, saying why, where there is no node or npm or they cannot install."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("js-libp2p NOT TESTED: node and npm are not installed")
    done = subprocess.run(["node", FOLDER / "prepare.mjs"], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"js-libp2p NOT TESTED: npm could not install its packages: {done.stderr[-300:]}")
    return Path(done.stdout.strip())


@pytest.mark.parametrize("fast", [True, False])
async def test_js_libp2p_takes_part(prepared: Path, fast: bool) -> None:
    node = Libp2pTransport(key(1), fast_gossip=fast)
    heard: list[GossipMessage] = []

    async def listen() -> None:
        async for message in messages:
            heard.append(message)
            await node.publish(TOPIC, pack([seal(key(1), GENESIS, record) for record in (HEARTBEAT, CAPABILITY)]))

    async with (
        node.run(),
        node.subscribe(TOPIC, lambda _message: GossipVerdict.ACCEPT) as messages,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(listen)
        arguments = [node.addresses()[0], TOPIC, GENESIS.hex(), "2"]
        with trio.fail_after(60):
            done = await trio.run_process(
                ["node", "--import", "./polyfill.mjs", "client.mjs", *arguments],
                cwd=prepared,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        await until(lambda: heard)
        nursery.cancel_scope.cancel()
    found = json.loads(done.stdout)
    assert found["peer"] == peer_id_text(key(1).node_id)
    assert {"/meshsub/1.1.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"} <= set(found["protocols"])
    assert found["ping_ms"] < 5_000
    assert heard[0].data == b"from js-libp2p"
    assert peer_id_text(heard[0].author) == found["self"]
    records = {record["kind"]: record for record in found["heard"]}
    for sent in (HEARTBEAT, CAPABILITY):
        record = records[type(sent).__name__]
        assert record["signed"] is True and record["together"] == 2
        assert record["version"] == 1
        assert record["sender"] == key(1).node_id.hex()
        assert record["from"] == peer_id_text(key(1).node_id)
        fields = {name: getattr(sent, name) for name in sent.__struct_fields__}
        plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
        assert record["message"] == json.loads(json.dumps(plain))
