"""Content-addressed blobs: on disk for a node, in memory for a simulated one.

A blob's name is its CID, so a read can be checked: a file whose bytes no longer give its name counts as absent. Paths
are built only from validated CIDs, hexadecimal job ids and integers. Files appear whole or not at all (written beside,
synced, renamed), and a put that would exceed the quota is refused before anything is touched.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import structlog

from ..protocol.cid import cid_of, is_cid
from ..protocol.errors import LocalError
from ..protocol.limits import BLOB_MAX_BYTES, ID_BYTES, SEGMENTS_MAX, STATE_MAX_BYTES
from ..protocol.units import JobId

_log = structlog.get_logger()
_TEMPORARY = ".part"


class FileBlobs:
    """A directory of blobs. `quota_bytes` bounds blobs and segment states together."""

    def __init__(self, directory: Path, quota_bytes: int) -> None:
        self._blobs, self._states, self._quota = directory / "blobs", directory / "states", quota_bytes
        try:
            for folder in (self._blobs, self._states):
                folder.mkdir(parents=True, exist_ok=True)
            self._used = _sweep(directory)
        except OSError as error:
            _refuse_disk(error)

    @property
    def used_bytes(self) -> int:
        """Bytes held at present."""
        return self._used

    def put(self, data: bytes) -> str:
        """Store, and return the CID; LocalError(field='disk') when the quota or the disk is full."""
        _check_size(data, BLOB_MAX_BYTES)
        cid = cid_of(data)
        if self.get(cid) is None:
            self._write(self._blob_path(cid), data)
        return cid

    def get(self, cid: str) -> bytes | None:
        """The bytes of `cid`; None when absent, malformed, or damaged on disk (which is logged)."""
        if not is_cid(cid):
            return None
        data = _read(self._blob_path(cid))
        if data is not None and cid_of(data) != cid:
            _log.error("blob_corrupt", cid=cid, bytes=len(data))
            return None
        return data

    def put_state(self, job: JobId, index: int, data: bytes) -> None:
        """Keep a segment state of a running job; an earlier one with the same index is replaced."""
        _check_size(data, STATE_MAX_BYTES)
        path = self._state_path(job, index)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            _refuse_disk(error)
        self._write(path, data)

    def get_state(self, job: JobId, index: int) -> bytes | None:
        """A kept segment state, or None."""
        return _read(self._state_path(job, index))

    def drop_states(self, job: JobId) -> None:
        """Forget all states of a job."""
        folder = self._states / _job_name(job)
        freed = _folder_bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self._used -= freed - _folder_bytes(folder)

    def _blob_path(self, cid: str) -> Path:
        return self._blobs / cid

    def _state_path(self, job: JobId, index: int) -> Path:
        return self._states / _job_name(job) / str(_check_index(index))

    def _write(self, path: Path, data: bytes) -> None:
        replaced = path.stat().st_size if path.exists() else 0
        if self._used - replaced + len(data) > self._quota:
            raise LocalError(
                f"{len(data)} bytes do not fit into the quota of {self._quota} bytes",
                field="disk",
                fix="raise the quota or remove data",
            )
        temporary = path.with_name(path.name + _TEMPORARY)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            _refuse_disk(error)
        self._used += len(data) - replaced


class MemoryBlobs:
    """The same store in memory, for simulations and tests; no file system, no clock."""

    def __init__(self, quota_bytes: int = BLOB_MAX_BYTES) -> None:
        self._blobs: dict[str, bytes] = {}
        self._states: dict[tuple[JobId, int], bytes] = {}
        self._quota, self._used = quota_bytes, 0

    @property
    def used_bytes(self) -> int:
        """Bytes held at present."""
        return self._used

    def put(self, data: bytes) -> str:
        """Store, and return the CID; LocalError(field='disk') when the quota is full."""
        _check_size(data, BLOB_MAX_BYTES)
        cid = cid_of(data)
        if cid not in self._blobs:
            self._reserve(len(data))
            self._blobs[cid] = bytes(data)
        return cid

    def get(self, cid: str) -> bytes | None:
        """The bytes of `cid`, or None."""
        return self._blobs.get(cid)

    def put_state(self, job: JobId, index: int, data: bytes) -> None:
        """Keep a segment state of a running job."""
        _check_size(data, STATE_MAX_BYTES)
        _job_name(job)
        key = (JobId(bytes(job)), _check_index(index))
        self._reserve(len(data) - len(self._states.get(key, b"")))
        self._states[key] = bytes(data)

    def get_state(self, job: JobId, index: int) -> bytes | None:
        """A kept segment state, or None."""
        return self._states.get((job, index))

    def drop_states(self, job: JobId) -> None:
        """Forget all states of a job."""
        for key in [key for key in self._states if key[0] == job]:
            self._used -= len(self._states.pop(key))

    def _reserve(self, count: int) -> None:
        if self._used + count > self._quota:
            raise LocalError(
                f"{count} bytes do not fit into the quota of {self._quota} bytes",
                field="disk",
                fix="raise the quota or remove data",
            )
        self._used += count


def _check_size(data: bytes, maximum: int) -> None:
    if len(data) > maximum:
        raise LocalError(f"{len(data)} bytes are more than {maximum}", field="blob", fix="split the data")


def _check_index(index: int) -> int:
    if not 0 <= index <= SEGMENTS_MAX:
        raise LocalError(f"{index} is not between 0 and {SEGMENTS_MAX}", field="segment")
    return index


def _job_name(job: JobId) -> str:
    if len(job) != ID_BYTES:
        raise LocalError(f"a job id has {ID_BYTES} bytes, not {len(job)}", field="job")
    return job.hex()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.error("blob_unreadable", path=str(path), cause=str(error))
        return None


def _sweep(directory: Path) -> int:
    """Remove what a crash left half written; returns the bytes in use."""
    for path in directory.rglob("*" + _TEMPORARY):
        path.unlink(missing_ok=True)
    return _folder_bytes(directory)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _refuse_disk(error: OSError) -> NoReturn:
    raise LocalError(str(error), field="disk", fix="free some space or choose another data directory") from None
