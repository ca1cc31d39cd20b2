"""Text forms of ids and amounts: what a person types comes back, or the error names the field."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import AMOUNT_MAX, LAMPORTS_PER_SOL, MICRO
from cyxnode.protocol.units import base58, format_cyx, format_sol, parse_cyx, parse_id, parse_sol


@given(st.binary(min_size=32, max_size=32))
def test_an_id_survives_its_text_form(raw: bytes) -> None:
    assert parse_id(base58(raw), field="node") == raw


@given(st.binary(max_size=40), st.integers(0, 4))
def test_base58_keeps_leading_zeros(tail: bytes, zeros: int) -> None:
    text = base58(bytes(zeros) + b"\1" + tail)
    assert len(text) - len(text.lstrip("1")) == zeros


def test_base58_is_the_bitcoin_alphabet() -> None:
    assert base58(b"") == ""
    assert base58(bytes(32)) == "1" * 32
    assert base58(b"Hello World!") == "2NEpo7TZRRrLZSi2U"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "32-byte"),
        ("2NEpo7TZRRrLZSi2U", "32-byte"),
        ("1" * 31, "32-byte"),
        ("1" * 33, "32-byte"),
        ("z" * 44, "32-byte"),
        ("z" * 10_000, "32-byte"),
        ("O" * 32, "base58 character"),
        ("1" * 31 + " ", "base58 character"),
        ("1" * 31 + "é", "base58 character"),
    ],
)
def test_a_wrong_id_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(LocalError, match=why) as caught:
        parse_id(text, field="wallet")
    assert caught.value.field == "wallet"
    assert caught.value.fix


@given(st.integers(0, AMOUNT_MAX))
def test_an_amount_survives_its_text_form(amount: int) -> None:
    assert parse_cyx(format_cyx(amount), field="budget") == amount


@pytest.mark.parametrize(
    ("text", "micro"),
    [("0", 0), ("2.5", 2_500_000), (" 12 ", 12_000_000), ("0.000001", 1), ("007.10", 7_100_000)],
)
def test_amounts_that_people_type(text: str, micro: int) -> None:
    assert parse_cyx(text, field="budget") == micro


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1e3", "1,5", ".5", "5.", "0.0000001", "1 000", "nan", "0x10", "1.2.3", "9" * 13, "1" * 9999],
)
def test_anything_else_is_no_amount(text: str) -> None:
    with pytest.raises(LocalError, match="not an amount") as caught:
        parse_cyx(text, field="budget")
    assert caught.value.field == "budget"


def test_digits_of_other_scripts_are_no_amount() -> None:
    with pytest.raises(LocalError, match="not an amount"):
        parse_cyx("٣", field="budget")


def test_an_amount_beyond_any_product_with_basis_points_is_refused() -> None:
    over = format_cyx(AMOUNT_MAX + 1)
    with pytest.raises(LocalError, match="larger than any balance"):
        parse_cyx(over, field="budget")


def test_a_debt_keeps_its_sign() -> None:
    assert format_cyx(-1) == "-0.000001"
    assert format_cyx(-1_500_000) == "-1.500000"


@given(st.integers(0, 10**19 - 1))
def test_lamports_survive_their_text_form(lamports: int) -> None:
    assert parse_sol(format_sol(lamports), field="amount") == lamports


@given(st.integers(0, 10**9), st.text("0123456789", max_size=12))
def test_amounts_are_exact_decimals_or_refused(whole: int, decimals: str) -> None:
    """No float on the way: what is parsed equals the decimal number, and a digit too many is never dropped."""
    text = f"{whole}.{decimals}" if decimals else str(whole)
    for parse, scale, places in ((parse_cyx, MICRO, 6), (parse_sol, LAMPORTS_PER_SOL, 9)):
        if len(decimals) <= places and (parse is parse_sol or Decimal(text) * MICRO <= AMOUNT_MAX):
            assert parse(text, field="amount") == Decimal(text) * scale
        else:
            with pytest.raises(LocalError):
                parse(text, field="amount")


@pytest.mark.parametrize("text", ["", "-1", "1e3", ".5", "5.", "0.0000000001", "nan", "9" * 11, "٣", "1 2"])
def test_anything_else_is_no_sol(text: str) -> None:
    with pytest.raises(LocalError, match="not an amount in SOL") as caught:
        parse_sol(text, field="amount")
    assert caught.value.field == "amount" and "nine decimals" in caught.value.fix


def test_a_loss_of_sol_keeps_its_sign() -> None:
    assert format_sol(-5_000) == "-0.000005000"
