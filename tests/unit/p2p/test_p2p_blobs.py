from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing

from cyxnode.p2p.blob_store import FileBlobs, MemoryBlobs
from cyxnode.protocol.cid import CHUNK_BYTES, NODE_LINKS_MAX, cid_of, is_cid
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.ports import Blobs
from cyxnode.protocol.units import JobId

JOB = JobId(b"\7" * 32)
EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.mark.parametrize(
    ("data", "cid"),
    [
        (b"", EMPTY),
        (b"hello world\n", "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"),
        (b"x" * CHUNK_BYTES, "bafkrei"),
        (b"x" * (CHUNK_BYTES + 1), "bafybei"),
    ],
)
def test_cid_is_what_ipfs_add_prints(data: bytes, cid: str) -> None:
    assert cid_of(data).startswith(cid)
    assert is_cid(cid_of(data))


def test_cid_of_two_levels_matches_an_independent_importer() -> None:
    two_levels = bytes(CHUNK_BYTES) * (NODE_LINKS_MAX + 1) + b"end"
    assert cid_of(two_levels) == TWO_LEVELS
    assert cid_of(bytes(10 * CHUNK_BYTES)) == TEN_CHUNKS


TWO_LEVELS = "bafybeifgy3h5fisfyqjg3paqh3un5jkeojwpztc3szllt6ldj3nwhtbwdy"
TEN_CHUNKS = "bafybeigfyaw4ad5kzn7in42ndr4kdqat4zwtuqmzumn7aqddk3hp5ve4k4"


@pytest.mark.parametrize(
    "text", ["", "..", "../etc/passwd", EMPTY.upper(), EMPTY + "a", "Qm" + "a" * 44, EMPTY[:-1] + "/"]
)
def test_only_our_cids_are_names(text: str, tmp_path: Path) -> None:
    assert not is_cid(text)
    assert FileBlobs(tmp_path, 1000).get(text) is None


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return FileBlobs(tmp_path, 1000) if request.param == "file" else MemoryBlobs(1000)


def test_put_and_get(blobs: Blobs) -> None:
    cid = blobs.put(b"weights")
    assert cid == cid_of(b"weights")
    assert blobs.put(b"weights") == cid
    assert blobs.get(cid) == b"weights"
    assert blobs.get(EMPTY) is None


def test_states_are_kept_replaced_and_dropped(blobs: Blobs) -> None:
    blobs.put_state(JOB, 0, b"first")
    blobs.put_state(JOB, 0, b"again")
    blobs.put_state(JOB, 128, b"last")
    assert (blobs.get_state(JOB, 0), blobs.get_state(JOB, 128), blobs.get_state(JOB, 1)) == (b"again", b"last", None)
    blobs.drop_states(JOB)
    blobs.drop_states(JOB)
    assert blobs.get_state(JOB, 0) is None
    blobs.put(bytes(1000))


def test_quota_refuses_and_loses_nothing(blobs: Blobs) -> None:
    kept = blobs.put(b"k" * 600)
    blobs.put_state(JOB, 1, b"s" * 300)
    with pytest.raises(LocalError) as refused:
        blobs.put(b"x" * 101)
    assert refused.value.field == "disk" and refused.value.fix
    with pytest.raises(LocalError):
        blobs.put_state(JOB, 1, b"s" * 401)
    assert blobs.get(kept) == b"k" * 600
    assert blobs.get_state(JOB, 1) == b"s" * 300
    blobs.put(b"y" * 100)


def test_malformed_names_of_states_are_refused(blobs: Blobs) -> None:
    for job, index in ((JobId(b"../../x"), 0), (JOB, -1), (JOB, 10**9)):
        with pytest.raises(LocalError):
            blobs.put_state(job, index, b"x")


def test_damaged_file_counts_as_absent_and_is_logged_then_mended(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path, 1000)
    cid = blobs.put(b"weights")
    (tmp_path / "blobs" / cid).write_bytes(b"weightz")
    with structlog.testing.capture_logs() as logs:
        assert blobs.get(cid) is None
    assert [entry["event"] for entry in logs] == ["blob_corrupt"]
    blobs.put(b"weights")
    assert blobs.get(cid) == b"weights"
    assert blobs.used_bytes == 7


def test_restart_keeps_blobs_counts_them_and_sweeps_half_written_ones(tmp_path: Path) -> None:
    cid = FileBlobs(tmp_path, 1000).put(b"a" * 900)
    (tmp_path / "blobs" / "half.part").write_bytes(b"x" * 500)
    again = FileBlobs(tmp_path, 1000)
    assert again.used_bytes == 900
    assert again.get(cid) == b"a" * 900
    assert not list(tmp_path.rglob("*.part"))


def test_disk_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where a folder should be")
    with pytest.raises(LocalError, match="disk"):
        FileBlobs(tmp_path, 1000)
