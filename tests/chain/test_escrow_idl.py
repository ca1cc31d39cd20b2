"""The IDL says what the program is; a client generated from it reads and writes the same as ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from chain_world import CLASS, MINIMUM_STAKE, World, key, node_id
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.units import MicroCyx
from node_packages import assert_no_registry, node_with

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import escrow_accounts
import escrow_idl

JS = Path(__file__).parent / "js"
RUN_LIMIT_S = 120
ROLES = {(False, False): 0, (False, True): 1, (True, False): 2, (True, True): 3}
"""(signs, is written) as @solana/kit numbers it."""


def test_the_idl_is_in_step_with_the_sources() -> None:
    assert escrow_idl.IDL.read_text() == escrow_idl.text(), "run: python scripts/escrow_idl.py"


def test_structs_of_the_idl_have_the_sizes_of_the_layout() -> None:
    sizes = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}

    def size(form: dict[str, Any]) -> int:
        match form["kind"]:
            case "numberTypeNode":
                return sizes[form["format"]]
            case "publicKeyTypeNode":
                return 32
            case "arrayTypeNode":
                return size(form["item"]) * form["count"]["value"]
        return int(form["size"])

    program = escrow_idl.idl()["program"]
    for account in program["accounts"]:
        assert sum(size(field["type"]) for field in account["data"]["fields"]) == account["size"]
    assert [account["size"] for account in program["accounts"]] == [
        layout.CONFIG_BYTES, layout.NODE_BYTES, layout.JOB_BYTES,
    ]  # fmt: skip
    lengths = [sum(size(a["type"]) for a in i["arguments"]) for i in program["instructions"]]
    assert lengths == [96, 80, 128, 1, 88, 1, 1, 1, 1, 1, 112]


def _sent(world: World) -> dict[str, list[Instruction]]:
    """Every instruction as the production encoders send it, in all its forms."""
    job = world.seated_job()
    sent = {"initialise": [world.initialise_instructions()[-1]]}
    register = chain.Register(CLASS, MicroCyx(1), bytes(world.admin.pubkey()))
    sent["register"] = [world.encode(register, world.admin)[-1]]
    sent["open_job"] = [world.encode(world.open_job_wish(), world.requester)[-1]]
    sent["seat"] = [world.encode(chain.Seat(job.job, job.committee), world.admin)[-1]]
    sent["settle"] = [world.encode(world.signed(job, world.settlement(job, v)), world.admin)[-1] for v in Verdict]
    node = node_id(world.nodes[0])
    sent["request_unstake"] = [world.encode(chain.RequestUnstake(), world.nodes[0])[-1]]
    sent["withdraw_stake"] = [world.encode(chain.WithdrawStake(node), world.admin)[-1]]
    sent["withdraw_earned"] = [world.encode(chain.WithdrawEarned(node), world.admin)[-1]]
    sent["slash_equivocation"] = [world.encode(world.contradiction(job, world.nodes[0]), world.admin)[-1]]
    sent["refund_expired"] = [world.encode(chain.RefundExpired(job.job), world.admin)[-1]]
    world.settle(job)
    sent["close_job"] = [world.encode(chain.CloseJob(job.job), world.admin)[-1]]
    return sent


def test_the_account_table_is_what_the_encoders_send() -> None:
    world = World(5)
    sent = _sent(world)
    assert sent.keys() == escrow_accounts.ACCOUNTS.keys()
    places = {
        "config": layout.config_address(world.program), "stake_vault": layout.stake_vault_address(world.program),
        "program_data": layout.program_data_address(world.program), "mint": world.mint,
        **{name: Pubkey.from_string(address) for name, address in escrow_idl.WELL_KNOWN.items()},
    }  # fmt: skip
    for tag, (name, entries) in enumerate(escrow_accounts.ACCOUNTS.items()):
        table = [entry.partition(" ")[::2] for entry in entries]
        needed = sum("?" not in flags for _, flags in table)
        for instruction in sent[name]:
            assert instruction.data[0] == tag
            metas, more = instruction.accounts[: len(table)], instruction.accounts[len(table) :]
            assert len(metas) >= needed and (not more or name in escrow_accounts.MORE)
            for meta, (account, flags) in zip(metas, table, strict=False):
                assert (meta.is_signer, meta.is_writable) == ("s" in flags, "w" in flags), f"{name}: {account}"
                assert account not in places or meta.pubkey == places[account], f"{name}: {account}"
            assert all(meta.is_writable == escrow_accounts.MORE[name][1] for meta in more)


def test_the_lock_file_names_no_registry() -> None:
    assert_no_registry(JS)
    assert all("^" not in version for version in json.loads((JS / "package.json").read_text())["dependencies"].values())


@pytest.fixture(scope="module")
def node() -> str:
    """Path of a Node that can generate a client."""
    return node_with(JS, "no client was generated from the IDL")


@pytest.mark.slow
def test_a_generated_client_reads_and_writes_the_same(node: str, tmp_path: Path) -> None:
    world = World(5)
    job = world.settle(world.seated_job())
    worker = next(n for n in world.nodes if node_id(n) == job.worker)
    wallet, payout = world.wallet("new"), key("new/payout").pubkey()
    register = world.encode(chain.Register(CLASS, MicroCyx(MINIMUM_STAKE), bytes(payout)), wallet)[-1]
    addresses = [str(meta.pubkey) for meta in register.accounts]
    places = {
        "config": layout.config_address(world.program), "job": layout.job_address(world.program, job.job),
        "node": layout.node_address(world.program, node_id(worker)),
    }  # fmt: skip
    data = {name: {"data": (world.data(place) or b"").hex()} for name, place in places.items()}
    data["node"]["node"] = str(worker.pubkey())
    names = ["signer", "config", "node", "funding", "stakeVault", "tokenProgram", "systemProgram"]
    said = {
        "idl": str(escrow_idl.IDL), "folder": str(tmp_path), "program": str(world.program), "accounts": data,
        "code": 228, "register": {
            "accounts": dict(zip(names, addresses, strict=True)), "stake": str(MINIMUM_STAKE),
            "executionClass": CLASS.hex(), "payout": str(payout),
        },
    }  # fmt: skip
    (tmp_path / "input.json").write_text(json.dumps(said))
    command = [node, str(JS / "client.mjs"), str(tmp_path / "input.json")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)

    config, record = world.config(), world.node(worker)
    assert (found["config"]["mint"], found["config"]["genesis"]) == (str(world.mint), config.genesis.hex())
    assert (found["config"]["feeBps"], found["config"]["unbondingS"]) == (config.fee_bps, str(config.unbonding_s))
    assert (found["node"]["node"], found["node"]["stake"]) == (str(worker.pubkey()), str(record.stake))
    assert (found["node"]["feesGenerated"], found["node"]["jobsOk"]) == (str(record.fees_generated), 1)
    assert found["job"]["committee"][:3] == [str(Pubkey(member)) for member in job.committee]
    assert found["job"]["shares"] == [str(share) for share in (*job.shares, 0, 0, 0, 0)]
    assert (found["job"]["job"], found["job"]["worker"]) == (job.job.hex(), str(worker.pubkey()))
    assert (found["job"]["paid"], found["job"]["resultHash"], found["job"]["k"]) == (
        str(job.paid), job.result_hash.hex(), 3,
    )  # fmt: skip
    assert found["nodePda"] == str(places["node"])
    assert found["register"]["program"] == str(world.program)
    assert found["register"]["data"] == bytes(register.data).hex()
    roles = [ROLES[meta.is_signer, meta.is_writable] for meta in register.accounts]
    assert found["register"]["accounts"] == [list(pair) for pair in zip(addresses, roles, strict=True)]
    assert sorted(found["codes"]) == sorted(layout.ERRORS)
