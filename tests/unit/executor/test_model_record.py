"""Records of a shelf on the disk: what is none, and how a model is found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cyxnode.executor.model_record import (
    find,
    read_shelf,
    remove_record,
    short_id,
    write_record,
)
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.inference import model_id
from cyxnode.protocol.limits import (
    MODEL_RECORD_MAX_BYTES,
)
from model_shelves import gguf_record, shelf_of


def written(folder: Path, **changes: Any) -> Path:
    """A record that was changed by hand, in JSON."""
    shelved = write_record(folder, gguf_record("a"))
    path = folder / f"{shelved.short_id}.json"
    document = json.loads(path.read_text())
    for key, value in changes.items():
        place, _, inner = key.partition("__")
        if inner:
            document[place][inner] = value
        else:
            document[place] = value
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, "version"),
        ({"prompt_rate": -1}, "prompt_rate"),
        ({"generated_rate": 2**64}, "generated_rate"),
        ({"generated_rate": 0.5}, "generated_rate"),
        ({"more": 1}, "more"),
        ({"manifest": 3}, "manifest"),
        ({"manifest__name": "../../etc/passwd"}, "name"),
        ({"manifest__kind": "pickle"}, "kind"),
        ({"manifest__digest": "AAAA"}, "digest"),
        ({"manifest__context_length": 10**9}, "context_length"),
        ({"manifest__tokenizer": "bytes"}, "tokenizer"),
        ({"manifest__quantisation": "Q8_0"}, "which its name is not"),
        ({"path": "models/a.gguf"}, "model.path"),
        ({"path": ""}, "model.path"),
        ({"server": "http://127.0.0.1:11434"}, "model.server"),
        ({"server": "file:///etc/passwd"}, "server"),
    ],
)
def test_a_record_that_is_none_is_told_and_hides_no_other(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    path = written(tmp_path, **changes)
    shelf_of(tmp_path, "b")
    shelved, faults = read_shelf([tmp_path])
    assert [one.record.manifest.name for one in shelved] == ["b"]
    assert [fault.path for fault in faults] == [path]
    assert text in faults[0].reason
    assert "\n" not in faults[0].reason


def test_files_that_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_bytes(b"\xff\xfe{")
    (tmp_path / "large.json").write_bytes(b" " * (MODEL_RECORD_MAX_BYTES + 1))
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "ignored.txt").write_text("")
    shelved, faults = read_shelf([tmp_path, tmp_path / "none"])
    assert shelved == ()
    assert sorted(fault.path.name for fault in faults) == ["folder.json", "large.json", "pipe.json", "text.json"]


def test_a_model_is_found_by_name_and_by_id(tmp_path: Path) -> None:
    ids = shelf_of(tmp_path, ["a", "b"])
    shelved, _ = read_shelf([tmp_path])
    assert find(shelved, "b").id == ids["b"]
    assert find(shelved, ids["a"].hex()[:6]).id == ids["a"]
    assert find(shelved, short_id(ids["a"]).upper()).id == ids["a"]
    for text, fix in (("c", "there is a, b"), (ids["a"].hex()[:5], "there is")):
        with pytest.raises(LocalError, match=fix):
            find(shelved, text)
    other = msgspec.structs.replace(gguf_record("b").manifest, context_length=128)
    write_record(tmp_path, gguf_record("b", manifest=other))
    with pytest.raises(LocalError, match=f"each of .*{short_id(model_id(other))}"):
        find(read_shelf([tmp_path])[0], "b")
    for one in read_shelf([tmp_path])[0]:
        remove_record(one)
    assert list(tmp_path.iterdir()) == []
