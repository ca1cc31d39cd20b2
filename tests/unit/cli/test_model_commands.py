"""`cyxnode models` and `cyxnode market models`: what is put on a shelf, what a shelf shows, what the market shows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from command_line import Command, refused
from cyxnode.cli.market import QUIET_S, heard, rows, words
from cyxnode.executor.model_record import read_shelf, write_record
from cyxnode.protocol.messages import Capability, ModelOffer
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.presence_service import PresenceService
from model_shelves import gguf_record

EXAMPLES = Path(__file__).parents[3] / "examples"
PRICES = ("--prompt-price", "0.0005", "--generated-price", "0.002")


@pytest.fixture
def torch_files(tmp_path: Path) -> tuple[str, str]:
    """A real graph, and what could be weights as long as nobody loads them."""
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    return str(EXAMPLES / "tiny_lm.json"), str(tmp_path / "w.safetensors")


# the shelf


def test_from_adding_to_removing(command: Command, home: Path, torch_files: tuple[str, str]) -> None:
    assert "cyxnode models add" in command("models", "list").out
    added = command("models", "add", "tiny-lm", "--torch", *torch_files, *PRICES, "--no-try", "--json")
    facts = json.loads(added.out)
    assert (facts["name"], facts["kind"], facts["context_length"]) == ("tiny-lm", "torch", 64)
    assert (facts["prompt_rate_micro_cyx"], facts["generated_rate_micro_cyx"]) == (500, 2_000)
    Path(torch_files[1]).unlink()
    listed = json.loads(command("models", "list", "--json").out)
    assert listed == {key: value for key, value in facts.items() if key != "said"} | {"missing": ""}
    assert facts["model"] in command("models", "show", "tiny-lm").out
    changed = command("models", "price", facts["model"][:8], "--generated-price", "1.5", "--json")
    assert json.loads(changed.out)["generated_rate_micro_cyx"] == 1_500_000
    assert json.loads(changed.out)["prompt_rate_micro_cyx"] == 500
    heading, line = command("models", "list").out.splitlines()
    assert heading.split()[:3] == ["name", "id", "kind"]
    assert line.split()[:7] == ["tiny-lm", facts["model"][:16], "torch", "float32", "64", "0.000500", "1.500000"]
    assert command("models", "remove", "tiny-lm").out == "removed tiny-lm\n"
    assert list((home / "models").iterdir()) == []


def test_an_identity_has_its_own_prices(command: Command, home: Path, torch_files: tuple[str, str]) -> None:
    for place, price in (((), "1"), (("--name", "alice"), "2")):
        arguments = ("--torch", *torch_files, "--prompt-price", price, "--generated-price", price, "--no-try")
        assert command("models", "add", "tiny-lm", *arguments, *place).code == 0
    for place, price in (((), 1), (("--name", "alice"), 2), (("--name", "bob"), 1)):
        facts = json.loads(command("models", "list", *place, "--json").out)
        assert facts["generated_rate_micro_cyx"] == price * 1_000_000
    assert command("models", "remove", "tiny-lm", "--name", "alice").code == 0
    assert json.loads(command("models", "list", "--name", "alice", "--json").out)["prompt_rate_micro_cyx"] == 1_000_000


@pytest.mark.parametrize(
    ("arguments", "field", "text"),
    [
        (("x", *PRICES), "model", "--torch, --gguf and --ollama"),
        (("x", *PRICES, "--gguf", "a", "--ollama", "b", "c"), "model", "give one"),
        (("x", "--gguf", "a", "--prompt-price", "1"), "generated-price", "is missing"),
        (("x", "--gguf", "a", "--prompt-price", "1e3", "--generated-price", "1"), "prompt-price", "at most six"),
        (("x", *PRICES, "--gguf", "/none.gguf"), "gguf", "No such file"),
        (("x", *PRICES, "--gguf", str(EXAMPLES / "digits.toml")), "gguf", "does not begin with GGUF"),
        (("x", *PRICES, "--torch", "/none", "/none"), "torch.graph", "No such file"),
        (("x", *PRICES, "--torch", str(EXAMPLES / "digits_cnn.json"), "/none"), "torch.weights", "No such file"),
        (("x", *PRICES, "--torch", str(EXAMPLES / "digits_cnn.json"), __file__), "model.input", "one row of tokens"),
        (
            ("no name", *PRICES, "--torch", str(EXAMPLES / "tiny_lm.json"), __file__, "--no-try"),
            "model.name",
            "letters",
        ),
        (("x", *PRICES, "--torch", "a", "b", "--context", "64"), "context", "leave it out"),
        (("x", *PRICES, "--ollama", "localhost", "tiny"), "ollama", "http://"),
        (("x", *PRICES, "--gguf", "a", "--name", "../x"), "name", "folder"),
    ],
)
def test_what_cannot_be_added_is_named(
    command: Command, home: Path, arguments: tuple[str, ...], field: str, text: str
) -> None:
    refused(command("models", "add", *arguments), field, text)
    assert not (home / "models").exists()


def test_a_name_is_given_once(command: Command, torch_files: tuple[str, str]) -> None:
    arguments = ("models", "add", "tiny-lm", "--torch", *torch_files, *PRICES, "--no-try")
    assert command(*arguments).code == 0
    refused(command(*arguments), "model", "cyxnode models price")


def test_other_commands_name_what_is_wrong(command: Command, home: Path) -> None:
    for verb in ("show", "remove"):
        refused(command("models", verb, "nobody"), "model", "the shelf is empty")
    refused(command("models", "price", "nobody"), "price", "--prompt-price")
    write_record(home / "models", gguf_record("a"))
    refused(command("models", "price", "b", "--prompt-price", "1"), "model", "there is a")
    refused(command("models", "price", "a", "--prompt-price", "-1"), "prompt-price")


def test_broken_records_and_missing_files_are_shown(command: Command, home: Path) -> None:
    write_record(home / "models", gguf_record("a", path="/none\x1b[2J.gguf"))
    (home / "models" / "junk.json").write_text("{}")
    out = command("models", "list").out
    assert "junk.json: Object missing required field" in out
    assert "is missing" in out
    assert "\x1b" not in out
    lines = [json.loads(line) for line in command("models", "list", "--json").out.splitlines()]
    assert [sorted(line)[:1] for line in lines] == [["context_length"], ["fault"]]
    assert len(read_shelf([home / "models"])[1]) == 1


def test_a_node_needs_a_memory_that_can_be(command: Command) -> None:
    ended = command("run", "--models-memory", "0")
    assert "models_memory" in ended.err
    assert ended.code == 2


# the market


def offer(name: str = "tiny", model: int = 1, backend: int = 1, **changes: Any) -> ModelOffer:
    fields: dict[str, Any] = {
        "name": name,
        "kind": "torch",
        "model": bytes([model]) * 32,
        "backend": bytes([backend]) * 32,
        "quantisation": "float32",
        "context_length": 64,
        "prompt_rate": 500,
        "generated_rate": 2_000,
        "tokens_per_s_micro": 0,
        "warm": False,
    }
    return ModelOffer(**(fields | changes))


def capability(*models: ModelOffer) -> Capability:
    return Capability(
        sequence=1,
        sent_at_ms=1,
        execution_class=bytes(32),
        device="cpu",
        memory_mb=1,
        sandbox="none",
        rate_micro_per_s=1,
        region="",
        datasets=(),
        version="1",
        verifier=True,
        addresses=(),
        hardware={},
        models=models,
    )


def test_offers_of_one_model_and_class_are_one_row() -> None:
    nodes = [
        capability(offer(warm=True, tokens_per_s_micro=9_000_000), offer("other", 2)),
        capability(offer("renamed", prompt_rate=700), offer("renamed", prompt_rate=700)),
        capability(offer(tokens_per_s_micro=12_000_000), offer(backend=2)),
        capability(),
    ]
    other, tiny, elsewhere = [row.facts() for row in rows(nodes)]
    assert (other["name"], other["nodes"], other["tokens_per_s_micro"]) == ("other", 1, (0, 0))
    assert (tiny["name"], tiny["nodes"], tiny["warm"]) == ("tiny", 3, 1)
    assert (tiny["prompt_rate_micro_cyx"], tiny["tokens_per_s_micro"]) == ((500, 700), (9_000_000, 12_000_000))
    assert (elsewhere["model"], elsewhere["backend"]) == ("01" * 32, "02" * 32)
    text = words(nodes)
    assert text[2].split()[:8] == ["tiny", "01" * 8, "torch", "float32", "64", "0.000500–0.000700", "0.002000", "3"]
    assert "4 nodes were heard" in text[-1]


def test_an_empty_market_is_told_in_words() -> None:
    assert words([]) == ["no node was heard: try again, or with a longer --wait"]
    assert words([capability(), capability()]) == ["nobody serves a model: 2 nodes were heard"]


@dataclass
class Heard:
    """What `heard` needs of a PresenceService."""

    nodes: dict[NodeId, Capability] = field(default_factory=dict)
    changed: trio.Event = field(default_factory=trio.Event)

    def alive(self) -> dict[NodeId, Capability]:
        return self.nodes

    async def appear(self, *after_s: float) -> None:
        for seconds in after_s:
            await trio.sleep(seconds)
            self.nodes[NodeId(bytes([len(self.nodes)]))] = capability()
            self.changed.set()
            self.changed = trio.Event()


@pytest.mark.parametrize(
    ("after_s", "until_s"), [((), 8.0), ((1.0,), 1.0 + QUIET_S), ((3.0, 1.0, 1.0), 5.0 + QUIET_S), ((1.0,) * 20, 8.0)]
)
async def test_waiting_for_presence_is_bounded(
    after_s: tuple[float, ...], until_s: float, autojump_clock: MockClock
) -> None:
    presence, started = Heard(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(presence.appear, *after_s)
        await heard(cast(PresenceService, presence), 8.0)
        assert trio.current_time() - started == pytest.approx(until_s, abs=0.01)
        nursery.cancel_scope.cancel()
