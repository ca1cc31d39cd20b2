"""The doctor's questions to a machine, each with its failure provoked; and that none hides another."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
import trio

from cyxnode.cli import checks_machine as machine
from cyxnode.cli.checkup import Check, Finding, Level, aside, examine, fine
from cyxnode.ledger.journal import LevelJournal
from cyxnode.protocol.errors import ChainUnreachable, LocalError
from cyxnode.protocol.identity import KeyPair, save_key
from cyxnode.protocol.limits import DISK_FREE_MIN_BYTES, DISK_FREE_WANTED_BYTES

OK, WARNING, FAILURE = Level.OK, Level.WARNING, Level.FAILURE


def levels(found: Sequence[Finding]) -> list[Level]:
    """How bad; whatever is not OK has a fix of one line."""
    for one in found:
        assert bool(one.fix) == (one.level is not OK)
        assert one.text and "\n" not in one.text + one.fix
    return [one.level for one in found]


# the frame


async def test_no_check_hides_another(autojump_clock: object) -> None:
    async def lingers() -> list[Finding]:
        await trio.sleep_forever()

    async def refuses() -> list[Finding]:
        raise LocalError("is broken", field="thing", fix="mend it")

    async def unreachable() -> list[Finding]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_raise, ChainUnreachable("nobody answers"))
        return []

    async def surprised() -> list[Finding]:
        raise KeyError("a defect")

    async def well() -> list[Finding]:
        return [fine("a"), fine("b")]

    asked = {"lingers": lingers, "refuses": refuses, "away": unreachable, "surprised": surprised, "well": well}
    found = await examine([Check(name, ask) for name, ask in asked.items()])
    assert [name for name, _ in found] == ["lingers", "refuses", "away", "surprised", "well", "well"]
    assert levels([one for _, one in found]) == [FAILURE] * 4 + [OK] * 2
    assert "no answer within 20 s" in found[0][1].text
    assert found[1][1] == Finding(FAILURE, "thing: is broken", "mend it")
    assert found[2][1].text == "nobody answers"


async def _raise(error: Exception) -> None:
    raise error


async def test_a_check_that_blocks_is_left_behind() -> None:
    def blocks() -> list[Finding]:
        time.sleep(0.3)
        return [fine("too late")]

    async def well() -> list[Finding]:
        return [fine("quick")]

    found = await examine([Check("blocks", aside(blocks), 0.05), Check("well", well)])
    assert [one.level for _, one in found] == [FAILURE, OK]


# Python and packages


def test_an_old_python() -> None:
    assert levels(machine.check_python((3, 10, 9))) == [FAILURE]
    assert levels(machine.check_python()) == [OK]


def installed(name: str) -> str:
    versions = {"alpha": "1.5", "beta": "3.0+cpu"}
    if name not in versions:
        raise metadata.PackageNotFoundError(name)
    return versions[name]


def packages(*required: str, pins: str = "", folder: Path) -> Sequence[Finding]:
    (folder / "constraints.txt").write_text(pins)
    return machine.check_packages(required, installed, folder / "constraints.txt")


def test_packages_that_are_missing_do_not_fit_or_are_not_the_tested_ones(tmp_path: Path) -> None:
    assert levels(packages("alpha>=1", "beta>=3", folder=tmp_path)) == [OK]
    assert levels(packages("alpha>=1", "beta>=3", pins="# tested\nalpha==1.5\nbeta==3.0\n", folder=tmp_path)) == [OK]
    found = packages("alpha>=2", "gamma", "beta", 'delta; extra == "dev"', pins="Beta==3.1\n", folder=tmp_path)
    assert levels(found) == [FAILURE, FAILURE, WARNING]
    assert [one.fix for one in found] == ["pip install 'alpha>=2'", "pip install 'gamma'", "pip install beta==3.1"]


def test_the_packages_here_fit() -> None:
    assert levels(machine.check_packages()) == [OK]


# disk, journal, key


def test_a_disk_that_is_full_or_nearly(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there" / "yet"
    assert levels(machine.check_disk(home, lambda path: DISK_FREE_MIN_BYTES - 1)) == [FAILURE]
    assert levels(machine.check_disk(home, lambda path: DISK_FREE_WANTED_BYTES - 1)) == [WARNING]
    (found,) = machine.check_disk(home, lambda path: DISK_FREE_WANTED_BYTES)
    assert levels([found]) == [OK] and str(tmp_path) in found.text


def test_a_journal_that_is_damaged_in_use_or_still_to_come(tmp_path: Path) -> None:
    assert levels(machine.check_journal(tmp_path)) == [OK]
    assert not (tmp_path / "journal").exists()
    journal = LevelJournal(tmp_path / "journal")
    journal.put(b"a", b"1")
    (found,) = machine.check_journal(tmp_path)
    assert levels([found]) == [OK] and "in use" in found.text
    journal.close()
    assert levels(machine.check_journal(tmp_path)) == [OK]
    (tmp_path / "journal" / "CURRENT").write_text("nonsense\n")
    (found,) = machine.check_journal(tmp_path)
    assert levels([found]) == [FAILURE] and "mv " in found.fix


async def test_a_key_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    assert levels(machine.check_key(path)) == [WARNING]
    save_key(path, KeyPair(bytes(32)))
    assert levels(machine.check_key(path)) == [OK]
    path.chmod(0o644)
    ((_, found),) = await examine([Check("key", aside(lambda: machine.check_key(path)))])
    assert levels([found]) == [FAILURE] and "chmod 600" in found.fix


# sandbox and GPU


def test_a_sandbox_that_does_not_work() -> None:
    def none(wanted: str) -> None:
        raise LocalError("bwrap is not installed", field="sandbox", fix="x")

    assert levels(machine.check_sandbox(none, lambda: False)) == [WARNING, WARNING]
    assert levels(machine.check_sandbox(lambda wanted: wanted, lambda: True)) == [OK, OK]


@pytest.mark.slow
def test_seccomp_is_tried_in_a_child() -> None:
    assert machine.confines()
    open(__file__).close()  # this process is not confined


CARD = [("NVIDIA H100", "580.1")]


def test_a_gpu_that_pytorch_cannot_use() -> None:
    def gpu(cards: list[machine.Card], cuda: str | None, usable: bool) -> Finding:
        (found,) = machine.check_gpu(lambda: cards, lambda: ("2.13.0", cuda, usable))
        return found

    assert levels([gpu([], "13.0", False)]) == [OK]
    assert levels([gpu(CARD, "13.0", True)]) == [OK]
    without = gpu(CARD, None, False)
    assert levels([without]) == [WARNING] and "without CUDA" in without.text
    old = gpu(CARD, "13.0", False)
    assert levels([old]) == [WARNING] and "580.1" in old.text and "driver" in old.fix


@pytest.mark.slow
def test_the_cards_and_the_pytorch_of_this_machine_are_read() -> None:
    assert isinstance(machine.cards(), list)
    assert machine.torch_build()[0].startswith("2.")


# the port


def test_a_port_that_is_taken_and_one_that_changes() -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        assert levels(machine.check_port("127.0.0.1", port))[0] is WARNING
    assert levels(machine.check_port("127.0.0.1", port))[0] is OK
    assert levels(machine.check_port("127.0.0.1", 0))[0] is WARNING


@pytest.mark.parametrize(
    ("host", "own", "level", "word"),
    [
        ("127.0.0.1", [], WARNING, "loopback"),
        ("192.168.1.5", [], WARNING, "private"),
        ("8.8.8.8", [], OK, "public"),
        ("0.0.0.0", ["127.0.0.1", "fe80::1%eth0"], WARNING, "loopback"),
        ("0.0.0.0", ["127.0.0.1", "10.0.0.2"], WARNING, "private"),
        ("::", ["::1", "2600:1901::5", "aa:bb:cc:dd:ee:ff"], OK, "public"),
    ],
)
def test_who_can_dial_an_address(host: str, own: list[str], level: Level, word: str) -> None:
    found = machine.check_port(host, 0, lambda: own)[1]
    assert levels([found]) == [level] and word in found.text
