"""Where commands find their first peers: options, environment, configuration file, DNS, signed lists."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cyxnode.bootstrap.seed_list import sign_seed_list
from cyxnode.cli.bootstrap import bootstrap
from cyxnode.cli.seeding import SeedSources, seed_options, seeds
from cyxnode.cli.settings import load_config
from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.errors import LocalError, TransientError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.units import base58

PUBLISHER = KeyPair(b"\1" * 32)
ONE, TWO, THREE = (f"/ip4/192.0.2.1/tcp/{port}/p2p/{peer_id_text(PUBLISHER.node_id)}" for port in (1, 2, 3))
NAME = "/dnsaddr/seeds.example.org"


def txt(host: str) -> list[str]:
    return [f"dnsaddr={THREE}"]


def away(host: str) -> list[str]:
    raise TransientError("bootstrap: DNS does not answer")


@pytest.fixture
def listed(tmp_path: Path) -> SeedSources:
    path = tmp_path / "seeds.json"
    path.write_bytes(sign_seed_list(PUBLISHER, [TWO], int(time.time()), 86_400))
    return SeedSources((ONE,), path, base58(PUBLISHER.node_id))


def test_all_that_is_named_counts_and_the_file_of_home_only_without(tmp_path: Path, listed: SeedSources) -> None:
    (tmp_path / "bootstrap.addresses").write_text(f"{ONE}\n{NAME}\n")
    assert seeds(tmp_path, SeedSources(), resolver=txt) == (ONE, THREE)
    assert seeds(tmp_path, listed, resolver=txt) == (ONE, TWO)
    assert seeds(tmp_path, SeedSources((NAME, THREE, TWO)), resolver=txt) == (THREE, TWO)


def test_dns_away_stops_only_who_knows_nobody(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        seeds(tmp_path, SeedSources((NAME,)), tmp_path, away)
    assert seeds(tmp_path, SeedSources((NAME, ONE)), tmp_path, away) == (ONE,)
    (tmp_path / "journal").mkdir()
    assert seeds(tmp_path, SeedSources((NAME,)), tmp_path, away) == ()


def test_a_list_needs_the_key_of_its_publisher(tmp_path: Path, listed: SeedSources) -> None:
    with pytest.raises(LocalError) as refused:
        seeds(tmp_path, SeedSources((), listed.seeds, None))
    assert refused.value.field == "seeds_key" and "--seeds-key" in refused.value.fix


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SeedSources]:
    """What `cyxnode run` is told by a configuration file and a command line."""
    for name in ("BOOTSTRAP", "SEEDS", "SEEDS_KEY"):
        monkeypatch.delenv(f"CYXNODE_{name}", raising=False)

    def run(config: str, *arguments: str) -> SeedSources:
        (tmp_path / "config.toml").write_text(config)
        found: list[SeedSources] = []

        @click.command("run")
        @seed_options("")
        def command(bootstrap: SeedSources) -> None:
            found.append(bootstrap)

        group = click.Group(commands=[command])
        group.main(["run", *arguments], standalone_mode=False, default_map=load_config(tmp_path))
        return found[0]

    return run


def test_the_configuration_file_speaks_for_all_commands_or_for_one(told: Callable[..., SeedSources]) -> None:
    assert told(f'bootstrap = ["{ONE}", "{TWO}"]').bootstrap == (ONE, TWO)
    assert told(f'bootstrap = "{ONE} {TWO}"').bootstrap == (ONE, TWO)
    assert told(f'bootstrap = ["{ONE}"]\n[run]\nbootstrap = ["{TWO}"]').bootstrap == (TWO,)
    assert told('seeds = "a.json"\nseeds_key = "k"') == SeedSources((), Path("a.json"), "k")


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    told: Callable[..., SeedSources], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYXNODE_BOOTSTRAP", f"{TWO} {THREE}")
    assert told(f'bootstrap = "{ONE}"').bootstrap == (TWO, THREE)
    assert told(f'bootstrap = "{ONE}"', "--bootstrap", NAME).bootstrap == (NAME,)


@pytest.mark.parametrize(
    "config", ["bootstrap = 5", "bootstrap = [1]", "seeds = []", "[run]\nbootstrap = {}", "run = 1"]
)
def test_a_configuration_that_is_none_is_named(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.toml").write_text(config)
    with pytest.raises(LocalError) as refused:
        load_config(tmp_path)
    assert refused.value.field == "config" and refused.value.fix and "config.toml" in str(refused.value)


def test_a_list_is_signed_and_verified_by_commands(tmp_path: Path) -> None:
    runner, out = CliRunner(env={"CYXNODE_HOME": str(tmp_path)}), str(tmp_path / "seeds.json")
    signed = runner.invoke(bootstrap, ["list", "sign", ONE, TWO, "--out", out], catch_exceptions=False)
    key = signed.output.strip().rsplit(" ", 1)[1]
    verified = runner.invoke(bootstrap, ["list", "verify", out, "--seeds-key", key], catch_exceptions=False)
    assert verified.output.splitlines()[:2] == [ONE, TWO]
    assert re.search("holds for (29|30) more days", verified.output)
