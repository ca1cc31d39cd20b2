/* The end of a job: verifiers are credited, a slashed stake goes to the treasury, the rest to the requester.
 * close_job does so once the job is settled, refund_expired when it was not in time. The accounts end, their rent is
 * the requester's; the job's data is zeroed and handed to the System program, so that lamports sent to it within the
 * same transaction revive an empty account and not a job.
 */
#pragma once
#include "checks.h"

#define END_ACCOUNTS 7 /* before the treasury's and the Nodes */

/* Accounts: Job, config, vault, requester, requester's token account, stake vault, token program. */
NOINLINE u64 check_closing(const Input *in, const Job *j, const Config *c) {
  const Account *requester = &in->accounts[3];
  TRY(check_vault(&in->accounts[2], in, j, c));                                    /* 1 */
  REQUIRE(same(requester->key, &j->requester), E_REQUESTER_ADDRESS);               /* 2 */
  REQUIRE(requester->is_writable, E_NOT_WRITABLE);                                 /* 3 */
  associated_address(&j->requester, &c->mint, &WORK->digest);
  TRY(check_token_account(&in->accounts[4], &WORK->digest, &c->mint, E_REFUND_ADDRESS)); /* 4 */
  TRY(check_stake_vault(&in->accounts[5], in, c));                                 /* 5 */
  return check_programs(&in->accounts[6], 0);                                      /* 6 */
}

/* Each seat is credited its share; the tokens move to the stake vault. `next` is the account of the first Node. */
NOINLINE u64 credit_verifiers(const Input *in, Job *j, u64 next) {
  const Account *vault = &in->accounts[2];
  u64 sum = 0;
  Node *n;
  for (u64 i = 0; i < j->k; i++) {
    if (!j->shares[i]) continue;
    TRY(load_writable_node(&in->accounts[next++], in, &j->committee[i], &n));      /* 1 */
    grow(&n->earned, j->shares[i]);
    sum += j->shares[i];
  }
  REQUIRE(token_amount(vault) >= sum, E_VAULT_SHORT);                              /* 2 */
  SEEDS("job", &j->job, &j->bump);
  return token_transfer(vault, &in->accounts[5], &in->accounts[0], sum, 1);
}

/* Account END_ACCOUNTS is the treasury's, when the worker was slashed. */
NOINLINE u64 collect_slashed(const Input *in, const Job *j, const Config *c) {
  const Account *treasury = &in->accounts[END_ACCOUNTS];
  if (!j->slashed) return 0;
  TRY(check_token_account(treasury, &c->treasury_ata, &c->mint, E_TREASURY_ADDRESS)); /* 1 */
  return pay_from_stakes(&in->accounts[5], treasury, &in->accounts[1], c, j->slashed);
}

/* Send the whole vault to the requester, then end vault and job. Tokens that strangers sent to the vault go along,
 * since a token account with a balance cannot be closed. */
NOINLINE u64 end_accounts(const Input *in, Job *j) {
  const Account *job = &in->accounts[0], *vault = &in->accounts[2], *requester = &in->accounts[3];
  SEEDS("job", &j->job, &j->bump);
  TRY(token_transfer(vault, &in->accounts[4], job, token_amount(vault), 1));
  TRY(token_close(vault, requester, job));
  *requester->lamports += *job->lamports;
  *job->lamports = 0;
  for (u64 i = 0; i < sizeof(Job); i += 8) write_u64(job->data + i, 0);
  write_u64(job->data - 8, 0); /* the account's length, where the loader reads it back */
  copy_key(job->owner, &SYSTEM_PROGRAM);
  return 0;
}

/* Accounts: the seven of check_closing; the treasury's token account when the worker was slashed; then the Node of
 * each seat with a share, in seat order. */
NOINLINE u64 end_job(const Input *in, Job *j, const Config *c) {
  u64 nodes = END_ACCOUNTS + (j->slashed != 0), count = nodes;
  for (u64 i = 0; i < j->k; i++) count += j->shares[i] != 0;
  REQUIRE(in->count == count, E_ACCOUNTS_COUNT);                                   /* 1 */
  TRY(check_closing(in, j, c));                                                    /* 2 */
  TRY(credit_verifiers(in, j, nodes));                                             /* 3 */
  TRY(collect_slashed(in, j, c));                                                  /* 4 */
  return end_accounts(in, j);
}

NOINLINE u64 load_ending(const Input *in, Job **j, Config **c) {
  REQUIRE(in->length == 1, E_INSTRUCTION_LENGTH);                                  /* 1 */
  REQUIRE(in->count >= END_ACCOUNTS, E_ACCOUNTS_COUNT);                            /* 2 */
  TRY(load_job(&in->accounts[0], in, j));                                          /* 3 */
  return load_config(&in->accounts[1], in, c);                                     /* 4 */
}

NOINLINE u64 close_job(const Input *in) {
  Job *j;
  Config *c;
  TRY(load_ending(in, &j, &c));                                                    /* 1 */
  REQUIRE(j->state == SETTLED, E_NOT_SETTLED);                                     /* 2 */
  return end_job(in, j, c);
}

NOINLINE u64 refund_expired(const Input *in) {
  Job *j;
  Config *c;
  TRY(load_ending(in, &j, &c));                                                    /* 1 */
  REQUIRE(j->state != SETTLED, E_ALREADY_SETTLED);                                 /* 2 */
  TRY(read_clock());
  REQUIRE(now_s() >= j->refund_at_s, E_REFUND_TOO_EARLY);                          /* 3 */
  return end_job(in, j, c);
}
