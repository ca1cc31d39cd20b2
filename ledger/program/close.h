/* close_job: verifiers are credited, the rest goes back. refund_expired: all goes back. Both end the accounts, whose
 * rent the requester gets; the job's data is zeroed and handed to the System program, so that lamports sent to it
 * within the same transaction revive an empty account and not a job.
 */
#pragma once
#include "checks.h"

/* Accounts of both: Job, config, vault, requester, requester's token account, token program. */
NOINLINE u64 check_closing(const Input *in, const Job *j, const Config *c) {
  const Account *requester = &in->accounts[3];
  TRY(check_vault(&in->accounts[2], in, j, c));                                    /* 1 */
  REQUIRE(same(requester->key, &j->requester), E_REQUESTER_ADDRESS);               /* 2 */
  REQUIRE(requester->is_writable, E_NOT_WRITABLE);                                 /* 3 */
  TRY(check_token_account(&in->accounts[4], &j->refund_ata, &c->mint, E_REFUND_ADDRESS)); /* 4 */
  return check_programs(&in->accounts[5], 0);                                      /* 5 */
}

/* Send the whole vault to the requester, then end vault and job. Tokens that strangers sent to the vault go along,
 * since a token account with a balance cannot be closed. */
NOINLINE u64 end_job(const Input *in, Job *j) {
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

/* Each seat in the mask earns an equal share; the tokens move to the stake vault, the dust stays. */
NOINLINE u64 credit_verifiers(const Input *in, const Job *j, u64 members) {
  u64 each = members ? j->verifiers_share / members : 0, next = 7;
  Node *n;
  REQUIRE(token_amount(&in->accounts[2]) >= j->verifiers_share, E_VAULT_SHORT);    /* 1 */
  for (u64 i = 0; i < j->k; i++) {
    if (!(j->fee_mask >> i & 1)) continue;
    TRY(load_writable_node(&in->accounts[next++], in, &j->committee[i], &n));      /* 2 */
    grow(&n->earned, each);
  }
  SEEDS("job", &j->job, &j->bump);
  return token_transfer(&in->accounts[2], &in->accounts[6], &in->accounts[0], each * members, 1);
}

/* Accounts: the six of check_closing, stake vault, then the Node of each seat in the mask, in seat order. */
NOINLINE u64 close_job(const Input *in) {
  Job *j;
  Config *c;
  u64 members = 0;
  REQUIRE(in->length == 1, E_INSTRUCTION_LENGTH);                                  /* 1 */
  REQUIRE(in->count >= 7, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(load_job(&in->accounts[0], in, &j));                                         /* 3 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 4 */
  REQUIRE(j->state == SETTLED, E_NOT_SETTLED);                                     /* 5 */
  for (u64 i = 0; i < j->k; i++) members += j->fee_mask >> i & 1;
  REQUIRE(in->count == 7 + members, E_ACCOUNTS_COUNT);                             /* 6 */
  TRY(check_closing(in, j, c));                                                    /* 7 */
  TRY(check_stake_vault(&in->accounts[6], in, c));                                 /* 8 */
  TRY(credit_verifiers(in, j, members));                                           /* 9 */
  return end_job(in, j);
}

NOINLINE u64 refund_expired(const Input *in) {
  Job *j;
  Config *c;
  REQUIRE(in->length == 1, E_INSTRUCTION_LENGTH);                                  /* 1 */
  REQUIRE(in->count == 6, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(load_job(&in->accounts[0], in, &j));                                         /* 3 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 4 */
  REQUIRE(j->state != SETTLED, E_ALREADY_SETTLED);                                 /* 5 */
  TRY(read_clock());
  REQUIRE(now_s() >= j->refund_at_s, E_REFUND_TOO_EARLY);                          /* 6 */
  TRY(check_closing(in, j, c));                                                    /* 7 */
  return end_job(in, j);
}
