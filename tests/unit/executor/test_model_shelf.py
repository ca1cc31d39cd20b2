"""A shelf of models in virtual time: what is offered, what is loaded, and what goes when room is needed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from cyxnode.executor.model_memory import Held, fits_ever, idle, room_for
from cyxnode.executor.model_record import (
    find,
    read_shelf,
    remove_record,
    short_id,
    write_record,
)
from cyxnode.executor.model_shelf import ModelShelf, open_shelf
from cyxnode.protocol.errors import ExecutionFailed, LocalError, TransientError
from cyxnode.protocol.inference import model_id
from cyxnode.protocol.limits import (
    MODEL_IDLE_MAX_S,
    MODEL_LOOK_S,
    MODEL_RECORD_MAX_BYTES,
    MODEL_RETRY_S,
    MODEL_ROOM_MAX_S,
    MODELS_OFFERED_MAX,
)
from inference_models import Heard
from model_shelves import BACKEND, CountingSource, gguf_record, shelf_of, spec_for

MIB = 1024**2


def warm(shelf: ModelShelf) -> list[str]:
    return [offer.name for offer in shelf.offers() if offer.warm]


def names(shelf: ModelShelf) -> list[str]:
    return [offer.name for offer in shelf.offers()]


async def used(shelf: ModelShelf, model: bytes, seconds: float = 0.0) -> None:
    async with shelf.session(spec_for(model)):
        await trio.sleep(seconds)


# which model goes


def test_the_least_recently_used_goes_and_no_more_than_is_needed() -> None:
    held = [Held(0, 40, 0, 3.0), Held(1, 40, 0, 1.0), Held(2, 10, 0, 2.0), Held(3, 0, 0, 0.0)]
    assert room_for(10, 100, held) == ()
    assert room_for(11, 100, held) == (1,)
    assert room_for(50, 100, held) == (1,)
    assert room_for(55, 100, held) == (1, 2)
    assert room_for(100, 100, held) == (1, 2, 0)
    busy = [Held(0, 40, 1, 0.0), Held(1, 40, 0, 1.0)]
    assert room_for(60, 100, busy) == (1,)
    assert room_for(61, 100, busy) is None
    assert idle(busy, 101.0, 100.0) == (1,)
    with pytest.raises(ExecutionFailed, match="it takes 2 MiB, and models may have 1 MiB"):
        fits_ever(MIB + 1, MIB)


# what is offered


async def test_offers_say_what_the_record_says(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(b=5, a=5), shelf_of(tmp_path, "ba")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        first, second = shelf.offers()
        assert (first.name, first.model, first.backend) == ("a", ids["a"], BACKEND.execution_class)
        assert (first.prompt_rate, first.generated_rate, first.quantisation) == (500, 2_000, "Q4_1")
        assert (first.warm, first.tokens_per_s_micro, second.name) == (False, 0, "b")
        assert shelf.gpu_utilization_ppm() is None


async def test_a_shelf_that_works_ahead_loads_what_fits_beside_the_rest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    source, ids = CountingSource(a=4, b=4, c=4), shelf_of(tmp_path, "abc")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10, ahead=True) as shelf:
        await trio.sleep(2 * MODEL_LOOK_S - 1)
        assert source.loaded == ["a", "b"], "nothing goes for what nobody has asked for"
        await used(shelf, ids["c"])
        await trio.sleep(2 * MODEL_LOOK_S)
        assert source.loads == ["a", "b", "c"], "each is loaded ahead once"


async def test_speed_is_measured_and_moves(tmp_path: Path, autojump_clock: MockClock) -> None:
    ids = shelf_of(tmp_path, "a")
    async with open_shelf([tmp_path], {"gguf": CountingSource(a=5)}, budget=10) as shelf:
        async with shelf.session(spec_for(ids["a"])) as session:
            (claim,) = await session.generate(Heard())
            assert (await session.check(claim)).ok
        assert [(offer.warm, offer.tokens_per_s_micro) for offer in shelf.offers()] == [(True, 1_000_000)]
        shelf.served[0].speed.add(90, 10_000)
        assert shelf.offers()[0].tokens_per_s_micro == 2_000_000


async def test_what_is_gone_has_no_offer_until_it_is_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5, b=5), shelf_of(tmp_path, "ab")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        source.down["a"] = TransientError("no model server answers at http://x (fix: ollama serve)")
        await trio.sleep(MODEL_LOOK_S + 1)
        assert names(shelf) == ["b"]
        assert "ollama serve" in shelf.why_not(shelf.served[0])
        with pytest.raises(ExecutionFailed, match="not served just now: no model server"):
            await used(shelf, ids["a"])
        del source.down["a"]
        await trio.sleep(MODEL_LOOK_S)
        assert names(shelf) == ["a", "b"]
        await used(shelf, ids["a"])


async def test_a_server_that_fails_in_a_session_has_no_offer(tmp_path: Path, autojump_clock: MockClock) -> None:
    ids = shelf_of(tmp_path, "a")
    async with open_shelf([tmp_path], {"gguf": CountingSource(a=5)}, budget=10) as shelf:

        async def emit(_: object) -> None:
            raise TransientError("the model server has been silent")

        with pytest.raises(TransientError):
            async with shelf.session(spec_for(ids["a"])) as session:
                await session.generate(emit)
        assert names(shelf) == []
        await trio.sleep(MODEL_LOOK_S + 1)
        assert names(shelf) == ["a"]


async def test_the_folder_may_change_while_the_node_runs(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5, b=5), shelf_of(tmp_path, "a")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        shelf_of(tmp_path, "b")
        write_record(tmp_path, gguf_record("a", generated_rate=7))
        await trio.sleep(MODEL_LOOK_S + 1)
        assert [(offer.name, offer.generated_rate) for offer in shelf.offers()] == [("a", 7), ("b", 2_000)]
        async with shelf.session(spec_for(ids["a"])) as session:
            remove_record(shelf.served[0].shelved)
            await trio.sleep(MODEL_LOOK_S + 1)
            assert names(shelf) == ["b"]
            assert source.loaded == ["a"]
            assert len(await session.generate(Heard())) == 1
        assert source.loaded == []
        with pytest.raises(ExecutionFailed, match="is not served here"):
            await used(shelf, ids["a"])


async def test_no_more_than_can_be_announced(tmp_path: Path, autojump_clock: MockClock) -> None:
    many = "abcdefghij"
    shelf_of(tmp_path, many)
    async with open_shelf([tmp_path], {"gguf": CountingSource(**dict.fromkeys(many, 1))}, budget=10) as shelf:
        assert names(shelf) == list(many[:MODELS_OFFERED_MAX])
        assert "8 models at most" in shelf.why_not(shelf.served[-1])
        assert shelf.why_not(shelf.served[0]) == ""


async def test_an_earlier_folder_decides_about_the_price(tmp_path: Path, autojump_clock: MockClock) -> None:
    write_record(tmp_path / "own", gguf_record("a", prompt_rate=1))
    shelf_of(tmp_path / "shared", "ab")
    folders = [tmp_path / "own", tmp_path / "none", tmp_path / "shared"]
    async with open_shelf(folders, {"gguf": CountingSource(a=1, b=1)}, budget=10) as shelf:
        assert [(offer.name, offer.prompt_rate) for offer in shelf.offers()] == [("a", 1), ("b", 500)]


async def test_a_session_names_what_is_not_here(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5), shelf_of(tmp_path, "a")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        with pytest.raises(ExecutionFailed, match="0000000000000000 is not served here"):
            await used(shelf, bytes(32))
        spec = msgspec.structs.replace(spec_for(ids["a"]), backend=bytes(32))
        with pytest.raises(ExecutionFailed, match="not served on the backend"):
            async with shelf.session(spec):
                pass
        with pytest.raises(LocalError, match=r"task.num_predict"):
            async with shelf.session(spec_for(ids["a"], num_predict=0)):
                pass
        assert source.loads == []
    async with open_shelf([tmp_path], {}, budget=10) as shelf:
        assert names(shelf) == []
        assert "no backend" in shelf.why_not(shelf.served[0])


# what is loaded


async def test_models_stay_warm_and_make_room_for_others(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5, b=5, c=6), shelf_of(tmp_path, "abc")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        for name in "abab":
            await used(shelf, ids[name], 1.0)
        assert (source.loads, warm(shelf)) == (["a", "b"], ["a", "b"])
        await used(shelf, ids["a"])
        await used(shelf, ids["c"])
        assert (source.loads, source.loaded) == (["a", "b", "c"], ["c"])
        await used(shelf, ids["b"])
        assert (source.loaded, warm(shelf), source.most) == (["b"], ["b"], 10)
    assert source.loaded == []


async def test_a_model_in_use_is_waited_for_but_not_for_ever(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=6, b=6), shelf_of(tmp_path, "ab")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(used, shelf, ids["a"], 50.0)
            await trio.sleep(1)
            await used(shelf, ids["b"])
            assert 50 <= trio.current_time() < MODEL_ROOM_MAX_S
        async with trio.open_nursery() as nursery:
            nursery.start_soon(used, shelf, ids["a"], 500.0)
            await trio.sleep(10)
            with pytest.raises(ExecutionFailed, match="no room for 1 of 1 MiB: models in use"):
                await used(shelf, ids["b"])
        assert source.most == 6
        await used(shelf, ids["b"])


async def test_a_model_that_can_never_fit_is_refused_with_numbers(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=30 * MIB), shelf_of(tmp_path, "a")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10 * MIB) as shelf:
        assert names(shelf) == []
        assert "takes 30 MiB, and models may have 10 MiB" in shelf.why_not(shelf.served[0])
        with pytest.raises(ExecutionFailed, match="30 MiB"):
            await used(shelf, ids["a"])
        assert source.loads == []


async def test_idle_models_are_unloaded(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5, b=5), shelf_of(tmp_path, "ab")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf, trio.open_nursery() as nursery:
        nursery.start_soon(used, shelf, ids["a"], MODEL_IDLE_MAX_S + 100)
        await used(shelf, ids["b"])
        await trio.sleep(MODEL_IDLE_MAX_S - 5)
        assert sorted(source.loaded) == ["a", "b"]
        await trio.sleep(MODEL_LOOK_S + 20)
        assert (source.loaded, warm(shelf)) == (["a"], ["a"])


async def test_loading_in_the_background(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5), shelf_of(tmp_path, "a")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        shelf.prepare(ids["a"])
        shelf.prepare(bytes(32))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(used, shelf, ids["a"])
        assert (source.loads, source.prepared, warm(shelf)) == (["a"], ["a"], ["a"])
        assert trio.current_time() < 4
        shelf.prepare(ids["a"])
        await trio.sleep(1)
        assert (source.loads, source.prepared) == (["a"], ["a", "a"])


async def test_what_does_not_load_is_left_alone_for_a_while(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5), shelf_of(tmp_path, "a")
    source.broken["a"] = ExecutionFailed("llama.cpp cannot load it")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        shelf.prepare(ids["a"])
        await trio.sleep(MODEL_RETRY_S / 2)
        assert (names(shelf), source.loads) == ([], ["a"])
        assert shelf.why_not(shelf.served[0]) == "llama.cpp cannot load it"
        source.stamps["a"] = "another file"
        await trio.sleep(MODEL_LOOK_S)
        assert names(shelf) == ["a"]
        with pytest.raises(ExecutionFailed, match="cannot load"):
            await used(shelf, ids["a"])
        await trio.sleep(MODEL_RETRY_S + MODEL_LOOK_S)
        assert names(shelf) == ["a"]
        del source.broken["a"]
        await used(shelf, ids["a"])
        assert source.loads == ["a"] * 3


async def test_a_changed_file_and_a_dead_model_are_loaded_anew(tmp_path: Path, autojump_clock: MockClock) -> None:
    source, ids = CountingSource(a=5), shelf_of(tmp_path, "a")
    async with open_shelf([tmp_path], {"gguf": source}, budget=10) as shelf:
        await used(shelf, ids["a"])
        source.stamps["a"] = "another file"
        await trio.sleep(MODEL_LOOK_S + 2)
        assert source.loaded == []
        async with shelf.session(spec_for(ids["a"])) as session:

            async def emit(_: object) -> None:
                raise ExecutionFailed("the library has crashed")

            with pytest.raises(ExecutionFailed):
                await session.generate(emit)
        assert (source.loads, source.loaded) == (["a", "a"], [])


# what lies on the disk


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
