/* slash_equivocation: a key that signed two statements of one kind, sequence and round about one job, with different
 * digests, is convicted by those two alone, whoever brings them and however long ago the job ended. All its stake goes
 * to the treasury and the key is retired. Nobody gains by accusing.
 */
#pragma once
#include "quorum.h"

/* Both statements are the node's, about one job in one place, and differ. */
NOINLINE u64 check_contradiction(const SlashData *d, const Node *n) {
  Statement first, second;
  REQUIRE(WORK->statements == 2, E_STATEMENTS_COUNT);                              /* 1 */
  TRY(read_statement(0, &first));                                                  /* 2 */
  TRY(read_statement(1, &second));                                                 /* 3 */
  REQUIRE(same(first.key, &n->node), E_STATEMENTS_SIGNER);                         /* 4 */
  REQUIRE(same(second.key, &n->node), E_STATEMENTS_SIGNER);                        /* 5 */
  REQUIRE(read_u64(first.message) == read_u64(second.message), E_STATEMENTS_SLOT); /* 6 */
  u8 kind = first.message[4];
  REQUIRE(kind >= MESSAGE_AWARD && kind <= MESSAGE_SETTLE, E_STATEMENTS_KIND);     /* 7: what members sign */
  build_message(kind, first.message[5], read_u16(first.message + 6), &d->first);
  REQUIRE(same_message(first.message), E_STATEMENTS_DIGEST);                       /* 8 */
  build_message(kind, first.message[5], read_u16(first.message + 6), &d->second);
  REQUIRE(same_message(second.message), E_STATEMENTS_DIGEST);                      /* 9 */
  REQUIRE(!same(&d->first, &d->second), E_STATEMENTS_EQUAL);                       /* 10 */
  return 0;
}

/* Accounts: config, Node, stake vault, treasury's token account, token program, Instructions sysvar. */
NOINLINE u64 slash_equivocation(const Input *in) {
  const SlashData *d = (const SlashData *)in->data;
  Config *c;
  Node *n;
  REQUIRE(in->length == sizeof(SlashData), E_INSTRUCTION_LENGTH);                  /* 1 */
  REQUIRE(in->count == 6, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(load_config(&in->accounts[0], in, &c));                                      /* 3 */
  TRY(load_any_node(&in->accounts[1], in, &n));                                    /* 4 */
  REQUIRE(in->accounts[1].is_writable, E_NOT_WRITABLE);                            /* 5 */
  REQUIRE(!n->retired, E_NODE_RETIRED);                                            /* 6 */
  TRY(check_stake_vault(&in->accounts[2], in, c));                                 /* 7 */
  TRY(check_token_account(&in->accounts[3], &c->treasury_ata, &c->mint, E_TREASURY_ADDRESS)); /* 8 */
  TRY(check_programs(&in->accounts[4], 0));                                        /* 9 */
  TRY(find_precompile(&in->accounts[5]));                                          /* 10 */
  hash_context(c, in, &d->job, &d->open_slot);
  TRY(check_contradiction(d, n));                                                  /* 11 */
  u64 amount = n->stake;
  n->stake = 0;
  n->retired = 1;
  n->unbonding_at_s = 0;
  grow(&n->slashed, amount);
  return pay_from_stakes(&in->accounts[2], &in->accounts[3], &in->accounts[0], c, amount);
}
