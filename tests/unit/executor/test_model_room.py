"""Loaded models in virtual time: what stays, what goes when room is needed, what is loaded anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cyxnode.executor.model_memory import Held, fits_ever, idle, room_for
from cyxnode.executor.model_shelf import open_shelf
from cyxnode.protocol.errors import ExecutionFailed
from cyxnode.protocol.limits import (
    MODEL_IDLE_MAX_S,
    MODEL_LOOK_S,
    MODEL_RETRY_S,
    MODEL_ROOM_MAX_S,
)
from model_shelves import CountingSource, names, shelf_of, spec_for, used, warm

MIB = 1024**2


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
