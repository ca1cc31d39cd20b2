/* settle: what a quorum signed is done, once. OK pays the worker and the treasury out of the vault; the verifiers'
 * share stays there until close_job. No account that the requester or a verifier could close is touched.
 *
 * Seams for later verdicts: (1) PARTIAL pays newly attested units and leaves the job seated with the next sequence;
 * (2) FRAUD needs its own quorum {3, 4, 5} and the worker's signature, and slashes. Both are refused below.
 */
#pragma once
#include "open.h"
#include "quorum.h"

/* floor(price * units / total) for units <= total, without a product above 64 bits. */
INLINE u64 amount_of(u64 price, u32 units, u32 total) {
  u64 whole = price / total, rest = price % total;
  return whole * units + rest * units / total;
}

NOINLINE u64 check_verdict(const SettleData *d, const Job *j) {
  REQUIRE(d->verdict != PARTIAL, E_VERDICT_PARTIAL);                               /* 1: seam (1) */
  REQUIRE(d->verdict != FRAUD, E_VERDICT_FRAUD);                                   /* 2: seam (2) */
  REQUIRE(d->verdict >= VERDICT_OK && d->verdict <= CANCELLED, E_VERDICT_UNKNOWN); /* 3 */
  REQUIRE(d->price <= j->budget, E_PRICE);                                         /* 4 */
  REQUIRE(d->units <= j->units_total, E_UNITS);                                    /* 5 */
  REQUIRE(d->fee_mask < 1 << j->k, E_FEE_MASK);                                    /* 6 */
  int named = !is_zero(&d->worker);
  switch (d->verdict) {
    case VERDICT_OK:
      REQUIRE(named, E_WORKER_MISSING);                                            /* 7 */
      REQUIRE(d->units, E_UNITS_ZERO);                                             /* 8 */
      break;
    case FAILED:
      REQUIRE(!d->units, E_PAYS_NOTHING);                                          /* 9 */
      break;
    default:
      REQUIRE(!named, E_WORKER_GIVEN);                                             /* 10 */
      REQUIRE(!d->units && !d->price, E_PAYS_NOTHING);                             /* 11 */
  }
  REQUIRE(seat_of(j, &d->worker) == COMMITTEE_MAX, E_WORKER_IS_MEMBER);            /* 12 */
  REQUIRE(!same(&d->worker, &j->requester), E_WORKER_IS_REQUESTER);                /* 13 */
  return 0;
}

/* Accounts from the fifth on: vault, worker's payout account, treasury's account, token program. */
NOINLINE u64 pay(const Input *in, const Config *c, Job *j, Node *worker, u64 amount) {
  const Account *job = &in->accounts[0], *vault = &in->accounts[4], *payout = &in->accounts[5];
  const Account *treasury = &in->accounts[6];
  REQUIRE(same(&worker->execution_class, &j->execution_class), E_WORKER_CLASS);    /* 1 */
  TRY(check_vault(vault, in, j, c));                                               /* 2 */
  TRY(check_token_account(payout, &worker->payout_ata, &c->mint, E_PAYOUT_ADDRESS)); /* 3 */
  TRY(check_token_account(treasury, &c->treasury_ata, &c->mint, E_TREASURY_ADDRESS)); /* 4 */
  TRY(check_programs(&in->accounts[7], 0));                                        /* 5 */
  u64 fee = amount * j->fee_bps / BPS, share = fee * j->verifier_share_bps / BPS;
  j->paid = amount;
  j->verifiers_share = share;
  grow_one(&worker->jobs_ok);
  grow(&worker->fees_generated, fee - share);
  SEEDS("job", &j->job, &j->bump);
  TRY(token_transfer(vault, payout, job, amount - fee, 1));
  return token_transfer(vault, treasury, job, fee - share, 1);
}

/* Accounts: Job, config, Instructions sysvar; the worker's Node when one is named; for OK also those of `pay`. */
NOINLINE u64 settle(const Input *in) {
  const SettleData *d = (const SettleData *)in->data;
  Job *j;
  Config *c;
  Node *worker = 0;
  REQUIRE(in->length == sizeof(SettleData), E_INSTRUCTION_LENGTH);                 /* 1 */
  int named = !is_zero(&d->worker), ok = d->verdict == VERDICT_OK;
  REQUIRE(in->count == 3UL + (named ? 1 : 0) + (ok ? 4 : 0), E_ACCOUNTS_COUNT);    /* 2 */
  TRY(load_job(&in->accounts[0], in, &j));                                         /* 3 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 4 */
  REQUIRE(j->state == SEATED, E_NOT_SEATED);                                       /* 5 */
  TRY(read_clock());
  REQUIRE(now_s() < j->refund_at_s, E_SETTLE_TOO_LATE);                            /* 6 */
  REQUIRE(d->sequence == j->settlements, E_SEQUENCE);                              /* 7 */
  TRY(check_verdict(d, j));                                                        /* 8 */
  build_message(c, in, j, MESSAGE_SETTLE, d);
  TRY(check_quorum(&in->accounts[2], j));                                          /* 9 */
  if (named) TRY(load_writable_node(&in->accounts[3], in, &d->worker, &worker));   /* 10 */
  j->state = SETTLED;
  j->verdict = d->verdict;
  j->fee_mask = d->fee_mask;
  j->settlements++;
  j->units_paid += d->units;
  copy_key(&j->worker, &d->worker);
  copy_key(&j->result_hash, &d->result_hash);
  if (ok) return pay(in, c, j, worker, amount_of(d->price, d->units, j->units_total));
  if (named) grow_one(&worker->failures);
  return 0;
}
