"""A shelf of models in virtual time: what is offered, and when no longer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from cyxnode.executor.model_record import (
    remove_record,
    write_record,
)
from cyxnode.executor.model_shelf import open_shelf
from cyxnode.protocol.errors import ExecutionFailed, LocalError, TransientError
from cyxnode.protocol.limits import (
    MODEL_LOOK_S,
    MODELS_OFFERED_MAX,
)
from inference_models import Heard
from model_shelves import BACKEND, CountingSource, gguf_record, names, shelf_of, spec_for, used


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
