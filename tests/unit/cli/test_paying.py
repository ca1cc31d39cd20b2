"""Options of payments reach the policy; amounts in SOL are exact."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cyxnode.cli.paying import format_sol, parse_sol, paying_options, send_policy
from cyxnode.ledger.send_policy import SendPolicy
from cyxnode.protocol.errors import LocalError


def policy_of(*arguments: str) -> SendPolicy:
    found = []

    @click.command()
    @paying_options
    def command() -> None:
        found.append(send_policy())

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return found[0]


def test_options_reach_the_policy() -> None:
    assert policy_of() == send_policy() == SendPolicy()
    assert policy_of("--commitment", "finalized", "--priority-fee-max", "0") == SendPolicy("finalized", 0)
    assert policy_of("--priority-fee-max", "0.000000001").priority_fee_max_lamports == 1


@pytest.mark.parametrize(
    ("text", "lamports"), [("0", 0), ("1", 10**9), ("0.0001", 100_000), ("12.000000001", 12 * 10**9 + 1)]
)
def test_amounts_in_sol(text: str, lamports: int) -> None:
    assert parse_sol(text, field="x") == lamports
    assert format_sol(lamports) == text


@pytest.mark.parametrize("text", ["", ".", "-1", "1e3", "nan", "0.0000000001", "１．"])
def test_what_is_no_amount_in_sol(text: str) -> None:
    with pytest.raises(LocalError, match=r"x: .* is not an amount in SOL"):
        parse_sol(text, field="x")
