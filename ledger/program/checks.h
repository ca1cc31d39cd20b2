/* Nothing is read from an account before these checks: address, owner, size, tag, version, mint, writability. */
#pragma once
#include "invoke.h"

#define TOKEN_MINT_AT 0
#define TOKEN_OWNER_AT 32
#define TOKEN_AMOUNT_AT 64
#define TOKEN_STATE_AT 108
#define TOKEN_STATE_INITIALISED 1
#define MINT_DECIMALS_AT 44
#define MINT_INITIALISED_AT 45

NOINLINE u64 check_payer(const Account *a) {
  REQUIRE(a->is_signer, E_SIGNER_MISSING);
  REQUIRE(a->is_writable, E_NOT_WRITABLE);
  return 0;
}

NOINLINE u64 check_programs(const Account *token, const Account *system) {
  REQUIRE(same(token->key, &TOKEN_PROGRAM), E_TOKEN_PROGRAM);
  REQUIRE(!system || same(system->key, &SYSTEM_PROGRAM), E_SYSTEM_PROGRAM);
  return 0;
}

NOINLINE u64 read_clock(void) {
  REQUIRE(!sol_get_clock_sysvar(&WORK->clock), E_CLOCK);
  REQUIRE(WORK->clock.unix_s >= 0, E_CLOCK);
  return 0;
}
INLINE u64 now_s(void) { return (u64)WORK->clock.unix_s; }

/* There is one Config: only initialise makes an account with this tag, at one address. So its address need not be
 * derived again, which would cost every instruction 1,500 compute units. */
NOINLINE u64 load_config(const Account *a, const Input *in, Config **out) {
  Config *c = (Config *)a->data;
  REQUIRE(same(a->owner, in->program), E_CONFIG_OWNER);
  REQUIRE(a->length == sizeof(Config) && c->tag == CONFIG_TAG && c->version == LAYOUT_VERSION, E_CONFIG_DATA);
  *out = c;
  return 0;
}

/* The Node account of `key`. */
NOINLINE u64 load_node(const Account *a, const Input *in, const Key *key, Node **out) {
  Node *n = (Node *)a->data;
  REQUIRE(same(a->owner, in->program), E_NODE_OWNER);
  REQUIRE(a->length == sizeof(Node) && n->tag == NODE_TAG && n->version == LAYOUT_VERSION, E_NODE_DATA);
  REQUIRE(same(&n->node, key), E_NODE_ADDRESS);
  SEEDS("node", &n->node, &n->bump);
  TRY(require_address(a, in, E_NODE_ADDRESS));
  *out = n;
  return 0;
}

/* A Node account, whosoever: its key is in its data and proves its address. */
NOINLINE u64 load_any_node(const Account *a, const Input *in, Node **out) {
  REQUIRE(a->length == sizeof(Node), same(a->owner, in->program) ? E_NODE_DATA : E_NODE_OWNER);
  return load_node(a, in, &((const Node *)a->data)->node, out);
}

NOINLINE u64 load_writable_node(const Account *a, const Input *in, const Key *key, Node **out) {
  TRY(load_node(a, in, key, out));
  REQUIRE(a->is_writable, E_NOT_WRITABLE);
  return 0;
}

/* A Job account, writable, whichever it is: its id is in its data and proves its address. */
NOINLINE u64 load_job(const Account *a, const Input *in, Job **out) {
  Job *j = (Job *)a->data;
  REQUIRE(same(a->owner, in->program), E_JOB_OWNER);
  REQUIRE(a->length == sizeof(Job) && j->tag == JOB_TAG && j->version == LAYOUT_VERSION, E_JOB_DATA);
  SEEDS("job", &j->job, &j->bump);
  TRY(require_address(a, in, E_JOB_ADDRESS));
  REQUIRE(a->is_writable, E_NOT_WRITABLE);
  *out = j;
  return 0;
}

NOINLINE u64 check_mint(const Account *a) {
  REQUIRE(same(a->owner, &TOKEN_PROGRAM) && a->length == MINT_BYTES, E_MINT_INVALID);
  REQUIRE(a->data[MINT_INITIALISED_AT] == 1 && a->data[MINT_DECIMALS_AT] == CYX_DECIMALS, E_MINT_INVALID);
  return 0;
}

/* A token account that will be written. Who may spend it is not our business: its address says whose it is. */
NOINLINE u64 check_token_account(const Account *a, const Key *address, const Key *mint, u64 address_error) {
  REQUIRE(same(a->key, address), address_error);
  REQUIRE(same(a->owner, &TOKEN_PROGRAM) && a->length == TOKEN_ACCOUNT_BYTES, E_TOKEN_OWNER);
  REQUIRE(same(a->data + TOKEN_MINT_AT, mint), E_TOKEN_MINT);
  REQUIRE(a->data[TOKEN_STATE_AT] == TOKEN_STATE_INITIALISED, E_TOKEN_STATE);
  REQUIRE(a->is_writable, E_NOT_WRITABLE);
  return 0;
}
INLINE u64 token_amount(const Account *a) { return read_u64(a->data + TOKEN_AMOUNT_AT); }

/* A token account of the signer, from which `amount` is about to be taken. */
NOINLINE u64 check_funding(const Account *a, const Account *owner, const Config *c, u64 amount) {
  TRY(check_token_account(a, a->key, &c->mint, E_FUNDING_OWNER));
  REQUIRE(same(a->data + TOKEN_OWNER_AT, owner->key), E_FUNDING_OWNER);
  REQUIRE(token_amount(a) >= amount, E_FUNDS);
  return 0;
}

NOINLINE u64 check_vault(const Account *a, const Input *in, const Job *j, const Config *c) {
  SEEDS("vault", &j->job, &j->vault_bump);
  TRY(require_address(a, in, E_VAULT_ADDRESS));
  return check_token_account(a, a->key, &c->mint, E_VAULT_ADDRESS);
}

NOINLINE u64 check_stake_vault(const Account *a, const Input *in, const Config *c) {
  SEEDS("stake_vault", 0, &c->stake_vault_bump);
  TRY(require_address(a, in, E_STAKE_VAULT_ADDRESS));
  return check_token_account(a, a->key, &c->mint, E_STAKE_VAULT_ADDRESS);
}

/* Move tokens out of the stake vault, which Config signs for. */
NOINLINE u64 pay_from_stakes(const Account *vault, const Account *to, const Account *config, const Config *c,
                             u64 amount) {
  SEEDS("config", 0, &c->bump);
  return token_transfer(vault, to, config, amount, 1);
}

/* Counters never wrap. */
INLINE void grow(u64 *counter, u64 by) { *counter = *counter + by < by ? ~0UL : *counter + by; }
INLINE void grow_one(u32 *counter) { *counter += *counter != ~0U; }
