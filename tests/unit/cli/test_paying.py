"""Options of payments reach the policy."""

from __future__ import annotations

import click
from click.testing import CliRunner

from cyxnode.cli.paying import paying_options, send_policy
from cyxnode.ledger.send_policy import SendPolicy


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
