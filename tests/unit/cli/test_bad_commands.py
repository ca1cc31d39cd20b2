"""Bad input on the command line: one line that names the field and the fix, an exit code, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Command, refused

CHAIN_DOWN = ("--rpc", "http://127.0.0.1:1")
SOMEBODY = ("--bootstrap", "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWSCm8AHpFgxJxVwgw5EhtNbWkT86KuUVHew5fGMoAZsZg")
SOMEONE = "EAEeekNSDgheQyDX6L16LZJfSjmo46HGz6BpvAs5MP3R"
EXAMPLE = str(Path(__file__).parents[3] / "examples" / "digits.toml")


@pytest.mark.parametrize("rate", ["abc", "-1", "1.0000001", "1e400", ""])
def test_a_rate_that_is_no_amount(command: Command, rate: str) -> None:
    refused(command("run", *SOMEBODY, f"--rate={rate}"), "rate", "at most six decimals")


def test_a_stake_that_is_no_amount(command: Command) -> None:
    refused(command("run", *SOMEBODY, "--stake", "many"), "stake")


def test_no_bootstrap_node_is_known(command: Command, home: Path) -> None:
    refused(command("run"), "bootstrap", "cyxnode bootstrap run")
    (home / "bootstrap.addresses").write_text("\n")
    refused(command("run"), "bootstrap", str(home / "bootstrap.addresses"))


@pytest.mark.parametrize("address", ["x", "127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/1/p2p/12D3"])
def test_an_address_that_is_none(command: Command, home: Path, address: str) -> None:
    refused(command("run", "--bootstrap", address), "bootstrap", "/tcp/4001/p2p/")
    (home / "bootstrap.addresses").write_text(address)
    refused(command("run"), "bootstrap", "/tcp/4001/p2p/")


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", ""])
def test_a_name_that_is_no_folder(command: Command, name: str) -> None:
    refused(command("run", *SOMEBODY, "--name", name), "name")


def test_a_key_that_others_may_read(command: Command, home: Path) -> None:
    key = home / "key.json"
    assert command("keygen", "--key", str(key)).code == 0
    key.chmod(0o644)
    refused(command("run", *SOMEBODY, "--key", str(key)), "key", f"chmod 600 {key}")


@pytest.mark.parametrize("text", ["", "hello", "[1, 2, 3]", '{"a": 1}', json.dumps([300] * 64), json.dumps([7] * 64)])
def test_a_file_that_is_no_key(command: Command, home: Path, text: str) -> None:
    key = home / "key.json"
    key.write_text(text)
    key.chmod(0o600)
    refused(command("run", *SOMEBODY, "--key", str(key)), "key")


def test_a_named_key_is_never_made_or_replaced(command: Command, home: Path) -> None:
    refused(command("run", *SOMEBODY, "--key", str(home / "none.json")), "key", "cyxnode keygen")
    assert not (home / "none.json").exists()
    assert command("keygen", "--key", str(home / "key.json")).code == 0
    before = (home / "key.json").read_bytes()
    refused(command("keygen", "--key", str(home / "key.json")), "key", "exists")
    assert (home / "key.json").read_bytes() == before


def test_a_key_that_cannot_be_written(command: Command, home: Path) -> None:
    (home / "file").write_text("")
    refused(command("keygen", "--key", str(home / "file" / "key.json")), "key", "writable")


def test_a_home_that_cannot_be_written(command: Command, home: Path) -> None:
    (home / "file").write_text("")
    refused(command("run", *SOMEBODY, "--home", str(home / "file" / "home")), "home", "writable")


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_is_none(command: Command, port: str) -> None:
    refused(command("chain", "run", "--in-memory", "--port", port), "port")


@pytest.mark.parametrize(
    "arguments",
    [("nosuch",), ("run", "--nosuch"), ("submit", "train"), ("demo", "--nodes", "2"), ("receipt", "verify")],
)
def test_a_command_line_that_click_refuses(command: Command, arguments: tuple[str, ...]) -> None:
    ended = command(*arguments)
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("error: ") and "--help` for " not in line and line.endswith("--help`)")
    assert ended.code == 2


def test_a_config_file_that_is_not_toml(command: Command, home: Path) -> None:
    (home / "config.toml").write_text("run = [")
    refused(command("run"), "config", "config.toml")


def test_a_config_file_gives_defaults(command: Command, home: Path) -> None:
    (home / "config.toml").write_text('[run]\nrate = "nonsense"\n')
    refused(command("run", *SOMEBODY), "rate", "nonsense")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "not json", '{"version": 2}'])
def test_a_file_that_is_no_receipt(command: Command, home: Path, text: str) -> None:
    (home / "receipt.json").write_text(text)
    for verb in ("verify", "show"):
        ended = command("receipt", verb, str(home / "receipt.json"))
        assert ended.err.startswith("error: ") and len(ended.err.splitlines()) == 1
        assert ended.code != 0 and ended.out == ""
    refused(command("receipt", "verify", str(home / "none.json")), "receipt", "No such file")


@pytest.mark.parametrize(
    ("arguments", "field", "text"),
    [
        (("balance", "x0"), "address", "base58"),
        (("history", SOMEONE[:-4]), "address", "32-byte"),
        (("send", "nobody", "1"), "address", "base58"),
        (("send", SOMEONE, "1.0000001"), "amount", "at most six decimals"),
        (("send", SOMEONE, "1.0000000001", "--sol"), "amount", "at most nine decimals"),
        (("send", SOMEONE, "1e3"), "amount", "not an amount in CYX"),
        (("send", "--sol", "--", SOMEONE, "-1"), "amount", "not an amount in SOL"),
        (("send", SOMEONE, "99999999999"), "amount", "larger than any balance"),
        (("stake", "many"), "amount", "not an amount"),
        (("stake", "1", "--payout", "me"), "payout", "32-byte"),
        (("stake", "1", "--name", "a/b"), "name", "folder"),
        (("unstake", "--key", "/none.json"), "key", "cyxnode keygen"),
        (("history", "--before", "5" * 20), "before", "whole signature"),
        (("balance", "--program", "x"), "program", "32-byte"),
        (("balance", "--rpc", "ftp://x"), "rpc", "http://"),
    ],
)
def test_money_commands_name_what_is_wrong(command: Command, arguments: tuple[str, ...], field: str, text: str) -> None:
    refused(command("wallet", *arguments), field, text)


@pytest.mark.parametrize("limit", ["0", "-1", "101", "x"])
def test_pages_of_history_are_bounded(command: Command, limit: str) -> None:
    refused(command("wallet", "history", "--limit", limit), "limit")


def test_a_look_at_another_address_makes_no_key(command: Command, home: Path) -> None:
    refused(command("wallet", "balance", SOMEONE, *CHAIN_DOWN), "rpc", "did not answer", code=4)
    assert list(home.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("wallet", "send", SOMEONE, "1"),
        ("wallet", "withdraw"),
        ("submit", "train", EXAMPLE, *SOMEBODY),
        ("run", *SOMEBODY),
        ("bootstrap", "run", "--listen", "127.0.0.1:0"),
        ("chain", "info"),
        ("chain", "airdrop"),
        ("job", "watch", "11111111111111111111111111111112", *SOMEBODY),
    ],
)
def test_a_chain_that_is_down(home: Path, arguments: tuple[str, ...]) -> None:
    from commands import assert_one_line, cyxnode

    ended = cyxnode(home, *arguments, *CHAIN_DOWN, within_s=15)
    assert_one_line(ended, "rpc", 4)
    assert "http://127.0.0.1:1 did not answer" in ended.stderr and ended.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("run", *SOMEBODY, "--listen", "nonsense"), "listen"),
        (("run", *SOMEBODY, "--listen", "127.0.0.1:65536"), "listen"),
        (("bootstrap", "run", "--listen", ":x"), "listen"),
        (("run", *SOMEBODY, "--rpc", "ftp://x"), "rpc"),
        (("run", *SOMEBODY, "--program", "short"), "program"),
        (("chain", "run", "--in-memory", "--port", "0", "--host", "8.8.8.8"), "host"),
        (("chain", "run", "--in-memory", "--port", "0", "--unbonding", "60"), "unbonding"),
        (("chain", "airdrop", "--to", "x"), "to"),
        (("chain", "airdrop", "--cyx", "-3"), "cyx"),
    ],
)
def test_addresses_and_amounts_that_are_none(home: Path, arguments: tuple[str, ...], field: str) -> None:
    from commands import assert_one_line, cyxnode

    assert_one_line(cyxnode(home, *arguments, within_s=15), field, 2)


def test_simulated_work_on_a_real_chain(command: Command) -> None:
    pretended = command("run", *SOMEBODY, *CHAIN_DOWN, "--program", "1" * 32, "--simulated-runner", "class0")
    refused(pretended, "simulated-runner", "local chain")


def test_a_deny_list_that_is_none(command: Command, tmp_path: Path) -> None:
    (tmp_path / "deny").write_text("somebody\n")
    refused(command("run", *SOMEBODY, *CHAIN_DOWN, "--deny-list", str(tmp_path / "deny")), "deny-list", "line 1")
    refused(command("bootstrap", "run", *CHAIN_DOWN, "--deny-list", str(tmp_path / "none")), "deny-list")


@pytest.mark.parametrize(("fee", "text"), [("-1", "not an amount in SOL"), ("1e9", "not an amount"), ("2", "2 SOL")])
def test_a_priority_fee_that_is_none_or_beyond_reason(command: Command, fee: str, text: str) -> None:
    refused(command("chain", "info", f"--priority-fee-max={fee}"), "priority-fee-max", text)
