"""The operator's list of peers that a node shuts out: how the file is read, and when it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyxnode.p2p import deny_list
from cyxnode.p2p.deny_list import DenyList
from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.units import NodeId, base58

ONE, OTHER = NodeId(b"1" * 32), NodeId(b"2" * 32)


def listed(path: Path, text: str) -> Path:
    """The file with another text, put in place at once, as an editor or a script does it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    return fresh.replace(path)


def test_both_names_of_a_peer_and_comments(tmp_path: Path) -> None:
    path = listed(tmp_path / "deny", f"# strangers\n\n{peer_id_text(ONE)}  # the first\n  {base58(OTHER)}\n")
    assert DenyList(path).nodes == {ONE, OTHER}


def test_a_change_is_read_once(tmp_path: Path) -> None:
    path = listed(tmp_path / "deny", "")
    denied = DenyList(path)
    assert ONE not in denied and not denied.refresh()
    listed(path, base58(ONE))
    assert denied.refresh() and ONE in denied
    assert not denied.refresh()
    listed(path, "# nobody\n")
    assert denied.refresh() and ONE not in denied


def test_an_unreadable_change_keeps_the_list(tmp_path: Path) -> None:
    path = listed(tmp_path / "deny", base58(ONE))
    denied = DenyList(path)
    listed(path, f"{base58(OTHER)}\nnobody knows\n")
    assert not denied.refresh() and denied.nodes == {ONE}
    path.unlink()
    assert not denied.refresh() and denied.nodes == {ONE}


@pytest.mark.parametrize("text", ["12D3KooW", "0" * 44, base58(ONE) + " " + base58(OTHER)])
def test_a_bad_line_is_named(tmp_path: Path, text: str) -> None:
    path = listed(tmp_path / "deny", f"\n{text}\n")
    with pytest.raises(LocalError, match="line 2") as refused:
        DenyList(path)
    assert "deny-list" in str(refused.value)


def test_a_missing_file_and_too_long_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalError, match="readable"):
        DenyList(tmp_path / "none")
    monkeypatch.setattr(deny_list, "DENY_LIST_MAX", 1)
    with pytest.raises(LocalError, match="at most 1"):
        DenyList(listed(tmp_path / "deny", f"{base58(ONE)}\n{base58(OTHER)}\n"))
