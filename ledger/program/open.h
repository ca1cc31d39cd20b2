/* open_job: the budget goes into escrow. seat: the lottery draws the committee from the hash of the open slot. */
#pragma once
#include "checks.h"

INLINE u8 quorum_of(u8 k) { return k == 3 ? 2 : k == 5 ? 3 : k == 7 ? 5 : 0; }

/* What submitters may be given back: seat has one signature, a settlement its own and at most one of each member and
 * of the worker; each step gets one more for a priority fee. What is not used returns to the requester. */
INLINE u64 deposit_of(u8 k) { return (2 + SETTLEMENTS_MAX * (k + 3UL)) * SIGNATURE_LAMPORTS; }

INLINE void hash_job_id(const Key *requester, const OpenJobData *d, Key *out) {
  WORK->slices[0] = (Slice){"cyx/job", 7};
  WORK->slices[1] = (Slice){requester, sizeof(Key)};
  WORK->slices[2] = (Slice){&d->nonce, sizeof(Key)};
  WORK->slices[3] = (Slice){&d->spec_hash, sizeof(Key)};
  sol_sha256(WORK->slices, 4, out);
}

NOINLINE u64 check_terms(const OpenJobData *d, const Config *c) {
  REQUIRE(d->budget && d->budget <= AMOUNT_MAX, E_BUDGET);                         /* 1 */
  REQUIRE(quorum_of(d->k), E_COMMITTEE_SIZE);                                      /* 2 */
  REQUIRE(d->units_total, E_UNITS_TOTAL);                                          /* 3 */
  REQUIRE(!is_zero(&d->execution_class), E_CLASS_ZERO);                            /* 4 */
  REQUIRE(d->work_deadline_s > now_s() && d->work_deadline_s <= TIME_MAX, E_WORK_DEADLINE);      /* 5 */
  REQUIRE(d->refund_at_s >= d->work_deadline_s + c->grace_s, E_REFUND_TIME);       /* 6 */
  REQUIRE(d->refund_at_s <= now_s() + c->unbonding_s, E_REFUND_TIME); /* 7: no stake leaves before the job is over */
  return 0;
}

NOINLINE void write_job(Job *j, const OpenJobData *d, const Config *c, const Key *requester) {
  j->tag = JOB_TAG;
  j->version = LAYOUT_VERSION;
  j->bump = WORK->bump[0];
  j->vault_bump = WORK->bump[1];
  j->state = OPEN;
  j->k = d->k;
  j->m = quorum_of(d->k);
  j->fee_bps = c->fee_bps;
  j->verifier_share_bps = c->verifier_share_bps;
  copy_key(&j->job, &WORK->context);
  copy_key(&j->requester, requester);
  copy_key(&j->spec_hash, &d->spec_hash);
  copy_key(&j->execution_class, &d->execution_class);
  j->budget = d->budget;
  j->open_slot = WORK->clock.slot;
  j->work_deadline_s = d->work_deadline_s;
  j->refund_at_s = d->refund_at_s;
  j->units_total = d->units_total;
}

/* Accounts: requester (signer, pays), config, Job, vault, requester's token account, mint, token, system program. */
NOINLINE u64 open_job(const Input *in) {
  const OpenJobData *d = (const OpenJobData *)in->data;
  const Account *requester = &in->accounts[0], *job = &in->accounts[2], *vault = &in->accounts[3];
  const Account *funding = &in->accounts[4], *mint = &in->accounts[5];
  Config *c;
  REQUIRE(in->length == sizeof(OpenJobData), E_INSTRUCTION_LENGTH);                /* 1 */
  REQUIRE(in->count == 8, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(check_payer(requester));                                                     /* 3 */
  TRY(check_programs(&in->accounts[6], &in->accounts[7]));                         /* 4 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 5 */
  REQUIRE(same(mint->key, &c->mint), E_MINT_ADDRESS);                              /* 6 */
  TRY(read_clock());
  TRY(check_terms(d, c));                                                          /* 7 */
  TRY(check_funding(funding, requester, c, d->budget));             /* 8 */
  hash_job_id(requester->key, d, &WORK->context);
  SEEDS("vault", &WORK->context, 0);
  TRY(require_canonical(vault, in, &WORK->bump[1], E_VAULT_ADDRESS));              /* 9 */
  TRY(create_token_account(requester, vault, mint, job->key));
  SEEDS("job", &WORK->context, 0);
  TRY(require_canonical(job, in, &WORK->bump[0], E_JOB_ADDRESS));                  /* 10 */
  TRY(create(requester, job, sizeof(Job), in->program, deposit_of(d->k)));         /* 11: not there yet */
  write_job((Job *)job->data, d, c, requester->key);
  return token_transfer(funding, vault, requester, d->budget, 0);
}

/* SlotHashes holds u64 count, then {u64 slot, hash} in falling order of slot. At most 512 entries: ten steps. */
NOINLINE u64 find_slot_hash(const Account *a, u64 slot, const Key **out) {
  REQUIRE(same(a->key, &SLOT_HASHES_SYSVAR), E_SLOT_HASHES_ADDRESS);
  REQUIRE(a->length >= 8, E_SLOT_HASH_MISSING);
  u64 low = 0, high = read_u64(a->data), room = (a->length - 8) / 40;
  if (high > room) high = room;
  while (low < high) {
    u64 middle = (low + high) / 2;
    const u8 *entry = a->data + 8 + 40 * middle;
    u64 found = read_u64(entry);
    if (found == slot) {
      *out = (const Key *)(entry + 8);
      return 0;
    }
    if (found > slot) low = middle + 1;
    else high = middle;
  }
  return E_SLOT_HASH_MISSING;
}

/* Ticket of a node: the first eight bytes of sha256("cyx/seat" | slot hash | job | node), little-endian. */
INLINE u64 ticket_of(const Key *slot_hash, const Key *job, const Key *node) {
  WORK->slices[0] = (Slice){"cyx/seat", 8};
  WORK->slices[1] = (Slice){slot_hash, sizeof(Key)};
  WORK->slices[2] = (Slice){job, sizeof(Key)};
  WORK->slices[3] = (Slice){node, sizeof(Key)};
  sol_sha256(WORK->slices, 4, &WORK->hash);
  return WORK->hash.w[0];
}

NOINLINE u64 check_member(const Node *n, const Job *j, const Config *c) {
  REQUIRE(same(&n->execution_class, &j->execution_class), E_MEMBER_CLASS);         /* 1 */
  REQUIRE(n->active_since_slot < j->open_slot, E_MEMBER_TOO_NEW);                  /* 2 */
  REQUIRE(!n->unbonding_at_s, E_MEMBER_UNBONDING);                                 /* 3 */
  REQUIRE(n->stake >= c->minimum_stake, E_MEMBER_STAKE);                           /* 4 */
  REQUIRE(!same(&n->node, &j->requester), E_MEMBER_REQUESTER);                     /* 5 */
  return 0;
}

/* Accounts: Job, config, SlotHashes, submitter, then k Node accounts in rising ticket order. Anyone may submit. */
NOINLINE u64 seat(const Input *in) {
  Job *j;
  Config *c;
  Node *n;
  const Key *slot_hash;
  u64 last = 0;
  REQUIRE(in->length == 1, E_INSTRUCTION_LENGTH);                                  /* 1 */
  REQUIRE(in->count >= 4, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(load_job(&in->accounts[0], in, &j));                                         /* 3 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 4 */
  REQUIRE(in->count == 4UL + j->k, E_ACCOUNTS_COUNT);                              /* 5 */
  REQUIRE(j->state == OPEN, E_NOT_OPEN);                                           /* 6 */
  TRY(read_clock());
  REQUIRE(WORK->clock.slot > j->open_slot, E_SEAT_TOO_EARLY);                      /* 7 */
  REQUIRE(WORK->clock.slot <= j->open_slot + SEAT_DEADLINE_SLOTS, E_SEAT_TOO_LATE); /* 8 */
  TRY(find_slot_hash(&in->accounts[2], j->open_slot, &slot_hash));                 /* 9 */
  TRY(check_payer(&in->accounts[3]));                                              /* 10 */
  for (u64 i = 0; i < j->k; i++) {
    TRY(load_any_node(&in->accounts[4 + i], in, &n));                              /* 11 */
    TRY(check_member(n, j, c));                                                    /* 12 */
    u64 ticket = ticket_of(slot_hash, &j->job, &n->node);
    REQUIRE(i == 0 || ticket > last, E_TICKET_ORDER);                              /* 13 */
    last = ticket;
    copy_key(&j->committee[i], &n->node);
  }
  j->state = SEATED;
  reimburse(&in->accounts[0], &in->accounts[3], 2);
  return 0;
}
