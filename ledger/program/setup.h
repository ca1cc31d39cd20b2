/* initialise: the Config account and the stake vault, once, by whoever may upgrade the program, so that nobody can be
 * first with terms of its own. register: a Node account and its stake, its class and its payout; again, to change them.
 */
#pragma once
#include "checks.h"

/* The loader keeps beside each program an account with u32 3, u64 slot, u8 1, upgrade authority. */
NOINLINE u64 check_authority(const Account *a, const Input *in, const Key *admin) {
  WORK->slices[0] = (Slice){in->program, sizeof(Key)};
  REQUIRE(!sol_try_find_program_address(WORK->slices, 1, &UPGRADEABLE_LOADER, &WORK->hash, &WORK->bump[7]),
          E_PROGRAM_DATA);                                                         /* 1 */
  REQUIRE(same(a->key, &WORK->hash), E_PROGRAM_DATA);                              /* 2 */
  REQUIRE(same(a->owner, &UPGRADEABLE_LOADER) && a->length >= 45, E_PROGRAM_DATA); /* 3 */
  REQUIRE(*(const u32 *)a->data == 3, E_PROGRAM_DATA);                             /* 4 */
  REQUIRE(a->data[12] == 1 && same(a->data + 13, admin), E_ADMIN_AUTHORITY);       /* 5 */
  return 0;
}

/* Accounts: admin (signer, pays), config, stake vault, mint, token program, system program, program data. */
NOINLINE u64 initialise(const Input *in) {
  const InitialiseData *d = (const InitialiseData *)in->data;
  const Account *admin = &in->accounts[0], *config = &in->accounts[1], *vault = &in->accounts[2];
  const Account *mint = &in->accounts[3];
  REQUIRE(in->length == sizeof(InitialiseData), E_INSTRUCTION_LENGTH);             /* 1 */
  REQUIRE(in->count == 7, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(check_payer(admin));                                                         /* 3 */
  TRY(check_programs(&in->accounts[4], &in->accounts[5]));                         /* 4 */
  TRY(check_mint(mint));                                                           /* 5 */
  REQUIRE(d->fee_bps <= FEE_BPS_MAX, E_FEE_BPS);                                   /* 6 */
  REQUIRE(d->verifier_share_bps <= BPS, E_VERIFIER_SHARE);                         /* 7 */
  REQUIRE(d->minimum_stake && d->minimum_stake <= AMOUNT_MAX, E_MINIMUM_STAKE);    /* 8 */
  REQUIRE(d->unbonding_s <= TIME_MAX && d->grace_s < d->unbonding_s, E_DURATION);  /* 9: else no job could be opened */
  REQUIRE(!is_zero(&d->treasury), E_TREASURY_ZERO);                                /* 10 */
  REQUIRE(!is_zero(&d->genesis), E_GENESIS_ZERO);                                  /* 11 */
  TRY(check_authority(&in->accounts[6], in, admin->key));                          /* 12 */
  SEEDS("stake_vault", 0, 0);
  TRY(require_canonical(vault, in, &WORK->bump[1], E_STAKE_VAULT_ADDRESS));        /* 13 */
  TRY(create_token_account(admin, vault, mint, config->key));
  SEEDS("config", 0, 0);
  TRY(require_canonical(config, in, &WORK->bump[0], E_CONFIG_ADDRESS));            /* 14 */
  TRY(create(admin, config, sizeof(Config), in->program, 0));                      /* 15: not there yet */
  Config *c = (Config *)config->data;
  c->tag = CONFIG_TAG;
  c->version = LAYOUT_VERSION;
  c->bump = WORK->bump[0];
  c->stake_vault_bump = WORK->bump[1];
  c->fee_bps = d->fee_bps;
  c->verifier_share_bps = d->verifier_share_bps;
  copy_key(&c->admin, admin->key);
  copy_key(&c->genesis, &d->genesis);
  copy_key(&c->mint, mint->key);
  copy_key(&c->treasury, &d->treasury);
  associated_address(&d->treasury, mint->key, &c->treasury_ata);
  c->minimum_stake = d->minimum_stake;
  c->unbonding_s = d->unbonding_s;
  c->grace_s = d->grace_s;
  return 0;
}

/* The signer's Node account, made when it is missing. */
NOINLINE u64 load_or_create_node(const Input *in, Node **out) {
  const Account *node = &in->accounts[2], *signer = &in->accounts[0];
  if (same(node->owner, in->program)) return load_writable_node(node, in, signer->key, out);
  SEEDS("node", signer->key, 0);
  TRY(require_canonical(node, in, &WORK->bump[0], E_NODE_ADDRESS));
  TRY(create(signer, node, sizeof(Node), in->program, 0));
  Node *n = (Node *)node->data;
  n->tag = NODE_TAG;
  n->version = LAYOUT_VERSION;
  n->bump = WORK->bump[0];
  copy_key(&n->node, signer->key);
  *out = n;
  return 0;
}

/* Accounts: node's key (signer, pays), config, Node, signer's token account, stake vault, token, system program.
 * A node counts as active from now on when it is new, was unbonding or below the minimum, or changes its class:
 * else it could become eligible for a draw whose slot hash it knows already. */
NOINLINE u64 register_node(const Input *in) {
  const RegisterData *d = (const RegisterData *)in->data;
  const Account *signer = &in->accounts[0], *funding = &in->accounts[3], *vault = &in->accounts[4];
  Config *c;
  Node *n;
  REQUIRE(in->length == sizeof(RegisterData), E_INSTRUCTION_LENGTH);               /* 1 */
  REQUIRE(in->count == 7, E_ACCOUNTS_COUNT);                                       /* 2 */
  TRY(check_payer(signer));                                                        /* 3 */
  TRY(check_programs(&in->accounts[5], &in->accounts[6]));                         /* 4 */
  REQUIRE(!is_zero(&d->execution_class), E_CLASS_ZERO);                            /* 5 */
  REQUIRE(!is_zero(&d->payout), E_PAYOUT_ZERO);                                    /* 6 */
  TRY(load_config(&in->accounts[1], in, &c));                                      /* 7 */
  TRY(check_stake_vault(vault, in, c));                                            /* 8 */
  TRY(check_funding(funding, signer, c, d->stake));                 /* 9 */
  TRY(load_or_create_node(in, &n));                                                /* 10 */
  REQUIRE(!n->retired, E_NODE_RETIRED);                                            /* 11 */
  REQUIRE(d->stake <= AMOUNT_MAX && n->stake + d->stake <= AMOUNT_MAX, E_STAKE_TOO_LARGE); /* 12 */
  REQUIRE(n->stake + d->stake >= c->minimum_stake, E_STAKE_TOO_SMALL);             /* 13 */
  TRY(read_clock());
  int eligible = n->stake >= c->minimum_stake && !n->unbonding_at_s;
  if (!eligible || !same(&n->execution_class, &d->execution_class)) n->active_since_slot = WORK->clock.slot;
  n->stake += d->stake;
  n->unbonding_at_s = 0;
  copy_key(&n->execution_class, &d->execution_class);
  copy_key(&n->payout, &d->payout);
  associated_address(&d->payout, &c->mint, &n->payout_ata);
  return token_transfer(funding, vault, signer, d->stake, 0);
}
