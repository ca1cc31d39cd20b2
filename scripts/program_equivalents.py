"""Mutants of the escrow program that no test can tell from it, each with the reason."""

_SYSVAR = "the runtime lays the sysvar out: its lengths and indices are true"
_PRECOMPILE = "the precompile ran before, and has refused data that are too short for what they announce"
_ABORTS = "a call that fails ends the whole transaction: it never returns an error"
_ZERO = "what lies behind is zero: shares of seats that are none, or the room that the runtime leaves behind an account"
_ALREADY = "the same is asked, with the same error, by what follows"

EQUIVALENT: dict[str, str] = {
    "setup.h: no d->stake <= AMOUNT_MAX in REQUIRE(d->stake <= AMOUNT_MAX && n->stake + d->stake <= AMOUNT_MAX, "
    "E_STAKE_TOO_LARGE)": "both amounts are of one mint, whose supply is 64 bits: their sum cannot wrap",
    "open.h: no REQUIRE(a->length >= 8, E_SLOT_HASH_MISSING)": _SYSVAR,
    "open.h: > for >= in REQUIRE(a->length >= 8, E_SLOT_HASH_MISSING);": _SYSVAR,
    "open.h: + for - in u64 low = 0, high = read_u64(a->data), room = (a->length - 8) / 40;": _SYSVAR,
    "open.h: >= for > in if (high > room) high = room;": "sets a number to itself",
    "open.h: >= for > in if (found > slot) low = middle + 1;": "an equal slot was returned the line before",
    "open.h: > for >= in REQUIRE(in->count >= 4, E_ACCOUNTS_COUNT);": _ALREADY,
    "open.h: no i == 0 in REQUIRE(i == 0 || ticket > last, E_TICKET_ORDER)": "`last` starts at 0, which no ticket is",
    "quorum.h: no REQUIRE(size >= 4, E_PRECOMPILE_MISSING)": _SYSVAR,
    "quorum.h: no current < read_u16(p) in REQUIRE(current >= 1 && current < read_u16(p), "
    "E_PRECOMPILE_MISSING)": _SYSVAR,
    "quorum.h: no REQUIRE(at + 2 <= size, E_PRECOMPILE_LENGTH)": _SYSVAR,
    "quorum.h: no REQUIRE(at + 34 <= size, E_PRECOMPILE_LENGTH)": _SYSVAR,
    "quorum.h: no REQUIRE(at + 34 + length <= size, E_PRECOMPILE_LENGTH)": _SYSVAR,
    "quorum.h: no REQUIRE(length >= PRECOMPILE_HEAD, E_PRECOMPILE_LENGTH)": _PRECOMPILE,
    "quorum.h: no REQUIRE(PRECOMPILE_HEAD + WORK->statements * sizeof(PrecompileEntry) <= length, "
    "E_PRECOMPILE_LENGTH)": _PRECOMPILE,
    "quorum.h: no REQUIRE(e->key_at + sizeof(Key) <= length, E_PRECOMPILE_LENGTH)": _PRECOMPILE,
    "invoke.h: ignore call(&SYSTEM_PROGRAM, 2, 12, 0)": _ABORTS,
    "invoke.h: ignore call(&SYSTEM_PROGRAM, 1, 12, 1)": _ABORTS,
    "invoke.h: <= for < in if (*a->lamports < lamports) {": "transfers nothing",
    "invoke.h: no meta(0, a, 1, 1); (again)": "the entry is the same one since the call before",
    "quorum.h: > for >= in REQUIRE(size >= 4, E_PRECOMPILE_MISSING);": _SYSVAR,
    "quorum.h: <= for < in REQUIRE(current >= 1 && current < read_u16(p), E_PRECOMPILE_MISSING);": _SYSVAR,
    "quorum.h: < for <= in REQUIRE(at + 2 <= size, E_PRECOMPILE_LENGTH);": _SYSVAR,
    "quorum.h: - for + in REQUIRE(at + 2 <= size, E_PRECOMPILE_LENGTH);": _SYSVAR,
    "quorum.h: < for <= in REQUIRE(at + 34 <= size, E_PRECOMPILE_LENGTH);": _SYSVAR,
    "quorum.h: < for <= in REQUIRE(at + 34 + length <= size, E_PRECOMPILE_LENGTH);": _SYSVAR,
    "quorum.h: <= for < in while (i < j->k && !same(&j->committee[i], key)) i++;": "whatever is found there is no seat",
    "settle.h: ignore token_transfer(vault, payout, job, amount - fee, 1)": _ABORTS,
    "settle.h: <= for < in for (u64 i = 0; i < j->k; i++) members += mask >> i & 1;": "no mask has a bit beyond k",
    "settle.h: <= for < in for (u64 i = 0; i < j->k; i++)": "no mask has a bit beyond k",
    "settle.h: <= for < in j->slashed = worker->stake < 2 * price ? worker->stake : 2 * price;": "both are equal",
    "close.h: ignore token_transfer(vault, &in->accounts[4], job, token_amount(vault), 1)": _ABORTS,
    "close.h: ignore token_close(vault, requester, job)": _ABORTS,
    "close.h: <= for < in for (u64 i = 0; i < j->k; i++) {": _ZERO,
    "close.h: <= for < in for (u64 i = 0; i < sizeof(Job); i += 8) write_u64(job->data + i, 0);": _ZERO,
    "close.h: <= for < in for (u64 i = 0; i < j->k; i++) count += j->shares[i] != 0;": _ZERO,
    "checks.h: no REQUIRE(a->length == sizeof(Node), same(a->owner, in->program) ? E_NODE_DATA : "
    "E_NODE_OWNER)": _ALREADY,
}
