/* settle: what a quorum signed is done, once. OK and PARTIAL pay the worker and the treasury out of the vault; the
 * verifiers' shares stay there until the job is closed. PARTIAL leaves the job seated for a successor; every other
 * verdict ends it. FRAUD takes from the worker's stake at once, but the tokens wait in the stake vault until
 * close_job: so its transaction fits. No account that the requester or a verifier could close is touched.
 */
#pragma once
#include "quorum.h"

INLINE int pays(const SettleData *d) { return d->verdict == VERDICT_OK || d->verdict == PARTIAL; }

/* floor(price * units / total) for units <= total, without a product above 64 bits. */
INLINE u64 amount_of(u64 price, u32 units, u32 total) {
  u64 whole = price / total, rest = price % total;
  return whole * units + rest * units / total;
}

NOINLINE u64 check_verdict(const SettleData *d, const Job *j) {
  REQUIRE(d->verdict >= VERDICT_OK && d->verdict <= FRAUD, E_VERDICT_UNKNOWN);     /* 1 */
  REQUIRE(d->price <= j->budget, E_PRICE);                                         /* 2 */
  REQUIRE(d->units <= j->units_total - j->units_paid, E_UNITS);                    /* 3 */
  REQUIRE(d->fee_mask < 1 << j->k, E_FEE_MASK);                                    /* 4 */
  int named = !is_zero(&d->worker);
  switch (d->verdict) {
    case PARTIAL:
      REQUIRE(d->units < j->units_total - j->units_paid, E_UNITS);                 /* 5: something is left to do */
      REQUIRE(d->sequence + 1 < SETTLEMENTS_MAX, E_SETTLEMENTS);                   /* 6: the last one ends the job */
      /* fall through */
    case VERDICT_OK:
      REQUIRE(named, E_WORKER_MISSING);                                            /* 7 */
      REQUIRE(d->units, E_UNITS_ZERO);                                             /* 8 */
      break;
    case FRAUD:
      REQUIRE(named, E_WORKER_MISSING);                                            /* 9 */
      /* fall through */
    case FAILED:
      REQUIRE(!d->units, E_PAYS_NOTHING);                                          /* 10 */
      break;
    default:
      REQUIRE(!named, E_WORKER_GIVEN);                                             /* 11 */
      REQUIRE(!d->units && !d->price, E_PAYS_NOTHING);                             /* 12 */
  }
  REQUIRE(seat_of(j, &d->worker) == COMMITTEE_MAX, E_WORKER_IS_MEMBER);            /* 13 */
  REQUIRE(!same(&d->worker, &j->requester), E_WORKER_IS_REQUESTER);                /* 14 */
  return 0;
}

/* Every seat in the mask is owed an equal part of `share`; what does not divide returns to the requester. */
NOINLINE void share_out(Job *j, u8 mask, u64 share) {
  u64 members = 0;
  for (u64 i = 0; i < j->k; i++) members += mask >> i & 1;
  u64 each = members ? share / members : 0;
  for (u64 i = 0; i < j->k; i++)
    if (mask >> i & 1) j->shares[i] += each;
}

/* Accounts from the sixth on: vault, worker's payout account, treasury's account, token program. */
NOINLINE u64 pay(const Input *in, const Config *c, Job *j, const SettleData *d, Node *worker) {
  const Account *job = &in->accounts[0], *vault = &in->accounts[5], *payout = &in->accounts[6];
  const Account *treasury = &in->accounts[7];
  REQUIRE(same(&worker->execution_class, &j->execution_class), E_WORKER_CLASS);    /* 1 */
  TRY(check_vault(vault, in, j, c));                                               /* 2 */
  TRY(check_token_account(payout, &worker->payout_ata, &c->mint, E_PAYOUT_ADDRESS)); /* 3 */
  TRY(check_token_account(treasury, &c->treasury_ata, &c->mint, E_TREASURY_ADDRESS)); /* 4 */
  TRY(check_programs(&in->accounts[8], 0));                                        /* 5 */
  u64 amount = amount_of(d->price, d->units, j->units_total);
  u64 fee = amount * j->fee_bps / BPS, share = fee * j->verifier_share_bps / BPS;
  j->paid += amount;
  j->units_paid += d->units;
  share_out(j, d->fee_mask, share);
  if (d->verdict == VERDICT_OK) grow_one(&worker->jobs_ok);
  grow(&worker->fees_generated, fee - share);
  SEEDS("job", &j->job, &j->bump);
  TRY(token_transfer(vault, payout, job, amount - fee, 1));
  return token_transfer(vault, treasury, job, fee - share, 1);
}

/* min(stake, 2 * price) is no longer the worker's. */
NOINLINE void slash_worker(Job *j, Node *worker, u64 price) {
  j->slashed = worker->stake < 2 * price ? worker->stake : 2 * price;
  worker->stake -= j->slashed;
  grow(&worker->slashed, j->slashed);
}

/* Accounts: Job, config, Instructions sysvar, submitter; the worker's Node when one is named; for OK and PARTIAL also
 * those of `pay`. */
NOINLINE u64 settle(const Input *in) {
  const SettleData *d = (const SettleData *)in->data;
  Job *j;
  Config *c;
  Node *worker = 0;
  REQUIRE(in->length == sizeof(SettleData), E_INSTRUCTION_LENGTH);                 /* 1 */
  int named = !is_zero(&d->worker);
  REQUIRE(in->count == 4UL + (named ? 1 : 0) + (pays(d) ? 4 : 0), E_ACCOUNTS_COUNT); /* 2 */
  TRY(load_job(&in->accounts[0], in, &j));                                         /* 3 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 4 */
  REQUIRE(j->state == SEATED, E_NOT_SEATED);                                       /* 5 */
  TRY(read_clock());
  REQUIRE(now_s() < j->refund_at_s, E_SETTLE_TOO_LATE);                            /* 6 */
  REQUIRE(d->sequence == j->settlements, E_SEQUENCE);                              /* 7 */
  TRY(check_verdict(d, j));                                                        /* 8 */
  TRY(check_quorum(&in->accounts[2], in, c, j, d));                                /* 9 */
  TRY(check_payer(&in->accounts[3]));                                              /* 10 */
  if (named) TRY(load_writable_node(&in->accounts[4], in, &d->worker, &worker));   /* 11 */
  if (d->verdict != PARTIAL) j->state = SETTLED;
  j->verdict = d->verdict;
  j->fee_mask |= d->fee_mask;
  j->settlements++;
  copy_key(&j->worker, &d->worker);
  copy_key(&j->result_hash, &d->result_hash);
  if (pays(d)) TRY(pay(in, c, j, d, worker));                                      /* 12 */
  else if (named) grow_one(&worker->failures);
  if (d->verdict == FRAUD) slash_worker(j, worker, d->price);
  reimburse(&in->accounts[0], &in->accounts[3], WORK->statements + 2);
  return 0;
}
