/* The way out of the network. request_unstake: a node stops being drawn and being awarded work; its stake stays liable
 * until the last job that it can be part of is over, since no job lasts longer than the unbonding time. Then
 * withdraw_stake. withdraw_earned: a verifier's shares, any time. Both pay the node's payout account, whoever asks.
 */
#pragma once
#include "checks.h"

/* Accounts: node's key (signer), config, Node. */
NOINLINE u64 request_unstake(const Input *in) {
  Config *c;
  Node *n;
  REQUIRE(in->length == 1, E_INSTRUCTION_LENGTH);                                  /* 1 */
  REQUIRE(in->count == 3, E_ACCOUNTS_COUNT);                                       /* 2 */
  REQUIRE(in->accounts[0].is_signer, E_SIGNER_MISSING);                            /* 3 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 4 */
  TRY(load_writable_node(&in->accounts[2], in, in->accounts[0].key, &n));          /* 5 */
  REQUIRE(n->stake, E_NO_STAKE);                                                   /* 6 */
  REQUIRE(!n->unbonding_at_s, E_ALREADY_UNBONDING);                                /* 7 */
  TRY(read_clock());
  n->unbonding_at_s = now_s() + c->unbonding_s;
  return 0;
}

/* Accounts: config, Node, stake vault, payout's token account, token program. */
NOINLINE u64 load_withdrawal(const Input *in, Config **c, Node **n) {
  REQUIRE(in->length == 1, E_INSTRUCTION_LENGTH);                                  /* 1 */
  REQUIRE(in->count == 5, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(load_config(&in->accounts[0], in, c));                                       /* 3 */
  TRY(load_any_node(&in->accounts[1], in, n));                                     /* 4 */
  REQUIRE(in->accounts[1].is_writable, E_NOT_WRITABLE);                            /* 5 */
  TRY(check_stake_vault(&in->accounts[2], in, *c));                                /* 6 */
  TRY(check_token_account(&in->accounts[3], &(*n)->payout_ata, &(*c)->mint, E_PAYOUT_ADDRESS)); /* 7 */
  return check_programs(&in->accounts[4], 0);                                      /* 8 */
}

NOINLINE u64 withdraw_stake(const Input *in) {
  Config *c;
  Node *n;
  TRY(load_withdrawal(in, &c, &n));                                                /* 1 */
  REQUIRE(n->unbonding_at_s, E_NOT_UNBONDING);                                     /* 2 */
  TRY(read_clock());
  REQUIRE(now_s() >= n->unbonding_at_s, E_STILL_UNBONDING);                        /* 3 */
  u64 amount = n->stake;
  n->stake = 0;
  n->unbonding_at_s = 0;
  return pay_from_stakes(&in->accounts[2], &in->accounts[3], &in->accounts[0], c, amount);
}

NOINLINE u64 withdraw_earned(const Input *in) {
  Config *c;
  Node *n;
  TRY(load_withdrawal(in, &c, &n));                                                /* 1 */
  REQUIRE(n->earned, E_NOTHING_EARNED);                                            /* 2 */
  u64 amount = n->earned;
  n->earned = 0;
  return pay_from_stakes(&in->accounts[2], &in->accounts[3], &in->accounts[0], c, amount);
}
