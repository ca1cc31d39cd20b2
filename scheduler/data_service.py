"""Blobs between nodes (DESIGN 10): asked for by CID, or by job and segment end, and never believed before checked.

A blob by CID is open to whoever knows its name. The state of a running job goes to its committee only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from ..protocol import codec
from ..protocol.cid import cid_of
from ..protocol.errors import PeerUnreachable, Refusal, RemoteError
from ..protocol.limits import (
    BLOB_CHUNK_BYTES,
    BLOB_FRAME_TIMEOUT_S,
    FETCH_RETRY_S,
    FETCH_TRIES_MAX,
    REQUEST_TIMEOUT_S,
    STATE_MAX_BYTES,
    STREAM_IDLE_TIMEOUT_S,
)
from ..protocol.messages import BlobHeader, BlobRequest
from ..protocol.ports import Blobs, Stream
from ..protocol.units import JobId, NodeId
from .wire import BLOB, Wire

ABSENT = -1


@dataclass(slots=True)
class DataService:
    """Serves our blobs and fetches those of others. `may_read_states` says who may read a job's states."""

    wire: Wire
    blobs: Blobs
    may_read_states: Callable[[JobId, NodeId], bool] = field(default=lambda job, peer: False)

    def start(self) -> None:
        """Begin to serve."""
        self.wire.transport.serve_stream(BLOB, self._serve)

    async def _serve(self, stream: Stream) -> None:
        frame: bytes | None = None
        with trio.move_on_after(REQUEST_TIMEOUT_S):
            frame = await stream.receive()
        asked = codec.decode(frame or b"", BlobRequest, max_bytes=1024)
        data = self._find(asked, stream.peer)
        await self._send(stream, codec.encode(BlobHeader(size=ABSENT if data is None else len(data))))
        view = memoryview(data or b"")
        for start in range(0, len(view), BLOB_CHUNK_BYTES):
            await self._send(stream, bytes(view[start : start + BLOB_CHUNK_BYTES]))
        await stream.close()

    async def _send(self, stream: Stream, frame: bytes) -> None:
        """One frame, to a peer that takes it in time: whoever dawdles holds a place that others need."""
        with trio.move_on_after(BLOB_FRAME_TIMEOUT_S):
            return await stream.send(frame)
        raise PeerUnreachable(f"the peer took no frame of a blob within {BLOB_FRAME_TIMEOUT_S:.0f} s")

    def _find(self, asked: BlobRequest, peer: NodeId) -> bytes | None:
        if asked.cid:
            return self.blobs.get(asked.cid)
        job = JobId(asked.job)
        return self.blobs.get_state(job, asked.state) if self.may_read_states(job, peer) else None

    async def fetch(self, peer: NodeId, cid: str, *, max_bytes: int) -> bytes:
        """A blob by CID, from our store or from `peer`; stored once its CID is checked.

        Raises PeerUnreachable, Refusal when the peer does not hold it, RemoteError when it sends other bytes.
        """
        held = self.blobs.get(cid)
        if held is not None:
            return held
        data = await self._download(peer, BlobRequest(cid=cid, job=b"", state=0), max_bytes)
        if cid_of(data) != cid:
            raise RemoteError(f"blob {cid} arrived with other bytes", peer=peer)
        self.blobs.put(data)
        return data

    async def fetch_state(self, peer: NodeId, job: JobId, index: int) -> bytes:
        """The state at segment end `index`; its hash is checked by the replay."""
        return await self._download(peer, BlobRequest(cid="", job=job, state=index), STATE_MAX_BYTES)

    async def _download(self, peer: NodeId, asked: BlobRequest, max_bytes: int) -> bytes:
        stream = await self.wire.transport.open_stream(peer, BLOB)
        try:
            await stream.send(codec.encode(asked))
            header = codec.decode(await self._frame(stream) or b"", BlobHeader, max_bytes=64)
            if header.size == ABSENT:
                raise Refusal(f"the peer does not hold {asked.cid or f'state {asked.state}'}", peer=peer)
            if header.size > max_bytes:
                raise RemoteError(f"the blob has {header.size} bytes, at most {max_bytes} are allowed", peer=peer)
            data = bytearray()
            while len(data) < header.size:
                chunk = await self._frame(stream)
                if not chunk or len(data) + len(chunk) > header.size:
                    raise PeerUnreachable(f"the transfer broke off after {len(data)} of {header.size} bytes")
                data += chunk
            return bytes(data)
        finally:
            await stream.reset()

    async def _frame(self, stream: Stream) -> bytes | None:
        with trio.move_on_after(STREAM_IDLE_TIMEOUT_S):
            return await stream.receive()
        raise PeerUnreachable(f"no data for {STREAM_IDLE_TIMEOUT_S:.0f} s")


async def patiently(fetch: Callable[[], Awaitable[bytes]]) -> bytes:
    """One broken connection convicts nobody: PeerUnreachable only after FETCH_TRIES_MAX tries."""
    for _ in range(FETCH_TRIES_MAX - 1):
        try:
            return await fetch()
        except PeerUnreachable:
            await trio.sleep(FETCH_RETRY_S)
    return await fetch()
