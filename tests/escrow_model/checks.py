"""What the program asks of an account, a token account, a new address and a precompile before it believes them."""

from __future__ import annotations

from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol.chain import ChainConfig, JobAccount, NodeAccount

from .ledger import SYSTEM, TOKEN, Account, Signed, Statements, Token, Work, derived, rent, require


def check_payer(work: Work, i: int) -> None:
    require(work.metas[i].signer, 104)
    require(work.metas[i].writable, 105)


def check_programs(work: Work, token: int, system: int | None = None) -> None:
    require(work.metas[token].address == TOKEN, 106)
    require(system is None or work.metas[system].address == SYSTEM, 107)


def load_config(work: Work, i: int) -> ChainConfig:
    account = work.account(i)
    require(account.owner == work.program, 121)
    require(isinstance(account.body, ChainConfig), 122)
    assert isinstance(account.body, ChainConfig)
    return account.body


def load_any_node(work: Work, i: int) -> NodeAccount:
    account = work.account(i)
    require(account.owner == work.program, 161)
    require(isinstance(account.body, NodeAccount), 162)
    assert isinstance(account.body, NodeAccount)
    return account.body


def load_node(work: Work, i: int, key: bytes) -> NodeAccount:
    node = load_any_node(work, i)
    require(node.node == key, 160)
    require(work.metas[i].writable, 105)
    return node


def load_job(work: Work, i: int) -> JobAccount:
    account = work.account(i)
    require(account.owner == work.program, 181)
    require(isinstance(account.body, JobAccount), 182)
    assert isinstance(account.body, JobAccount)
    require(work.metas[i].writable, 105)
    return account.body


def load_token(work: Work, i: int, address: bytes, mint: bytes, wrong_address: int) -> Token:
    require(work.metas[i].address == address, wrong_address)
    body = work.account(i).body
    require(isinstance(body, Token), 140)
    assert isinstance(body, Token)
    require(body.mint == mint, 142)
    require(body.state == 1, 141)
    require(work.metas[i].writable, 105)
    return body


def check_funding(work: Work, i: int, signer: bytes, mint: bytes, amount: int) -> None:
    paying = load_token(work, i, work.metas[i].address, mint, 143)
    require(paying.owner == signer, 143)
    require(paying.amount >= amount, 144)


def load_stake_vault(work: Work, i: int, config: ChainConfig) -> None:
    load_token(work, i, derived("stake_vault", work.program), config.mint, 130)


def load_vault(work: Work, i: int, job: bytes, config: ChainConfig) -> Token:
    return load_token(work, i, derived("vault", work.program, job), config.mint, 148)


def create_account(
    work: Work, payer: int, i: int, length: int, owner: bytes, body: Token | None, extra: int = 0
) -> None:
    old, lamports = work.account(i), rent(length) + extra
    require(old.owner == SYSTEM and old.body is None, 111)
    require(work.metas[i].writable, 105)
    paying = work.account(payer)
    require(paying.lamports + old.lamports >= lamports, 110)
    work.move_lamports(work.metas[payer].address, work.metas[i].address, max(0, lamports - old.lamports))
    work.put(work.metas[i].address, Account(work.account(i).lamports, owner, body))


def read_statements(work: Work, sysvar: int) -> tuple[Signed, ...]:
    require(work.metas[sysvar].address == bytes(layout.INSTRUCTIONS_SYSVAR), 220)
    require(work.before is not None, 221)
    require(isinstance(work.before, Statements), 222)
    assert isinstance(work.before, Statements)
    return work.before.entries


def read_statement(entry: Signed) -> Signed:
    require(entry.within, 224)
    require(len(entry.message) == 40, 225)
    return entry
