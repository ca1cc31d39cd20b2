/* Statements: 40 bytes, signed by one key, as the Ed25519 precompile has just verified. A quorum is enough distinct
 * members with the same one.
 *
 * The precompile is the instruction right before ours. It may be told to read keys, signatures and messages from
 * any instruction of the transaction, so we accept only data that lies within itself: what we read is what it checked.
 */
#pragma once
#include "open.h"

#define STATEMENT_BYTES 40
#define PRECOMPILE_SELF 0xffff
#define PRECOMPILE_HEAD 2
typedef struct {
  u16 signature_at, signature_instruction, key_at, key_instruction, message_at, message_length, message_instruction;
} PrecompileEntry; /* 14 bytes */
typedef struct { const Key *key; const u8 *message; } Statement;

/* FRAUD takes a stake, so it needs more signatures than what only moves a budget. */
INLINE u8 fraud_quorum_of(u8 k) { return k == 3 ? 3 : k == 5 ? 4 : 5; }

/* What every statement about one job is bound to: cluster, program, job, and this opening of it. */
NOINLINE void hash_context(const Config *c, const Input *in, const Key *job, const u64 *open_slot) {
  WORK->slices[0] = (Slice){&c->genesis, sizeof(Key)};
  WORK->slices[1] = (Slice){in->program, sizeof(Key)};
  WORK->slices[2] = (Slice){job, sizeof(Key)};
  WORK->slices[3] = (Slice){open_slot, 8};
  sol_sha256(WORK->slices, 4, &WORK->context);
}

NOINLINE void hash_settlement(const SettleData *d) {
  WORK->slices[0] = (Slice){"cyx/settle", 10};
  WORK->slices[1] = (Slice){&d->verdict, 1};
  WORK->slices[2] = (Slice){&d->worker, sizeof(Key)};
  WORK->slices[3] = (Slice){&d->price, 8};
  WORK->slices[4] = (Slice){&d->units, 4};
  WORK->slices[5] = (Slice){&d->result_hash, sizeof(Key)};
  WORK->slices[6] = (Slice){&d->fee_mask, 1};
  sol_sha256(WORK->slices, 7, &WORK->digest);
}

/* sha256(context | digest): the last 32 bytes of a statement. */
NOINLINE void bind_digest(const Key *digest, void *out) {
  WORK->slices[0] = (Slice){&WORK->context, sizeof(Key)};
  WORK->slices[1] = (Slice){digest, sizeof(Key)};
  sol_sha256(WORK->slices, 2, out);
}

/* WORK->message becomes "CYX1", kind, sequence, round, sha256(context | digest). */
NOINLINE void build_message(u8 kind, u8 sequence, u16 round, const Key *digest) {
  u8 *m = WORK->message;
  bind_digest(digest, m + 8);
  m[0] = 'C', m[1] = 'Y', m[2] = 'X', m[3] = '1', m[4] = kind, m[5] = sequence;
  *(u16 *)(m + 6) = round;
}

INLINE int same_message(const u8 *p) {
  for (int i = 0; i < STATEMENT_BYTES; i += 8)
    if (read_u64(p + i) != read_u64(WORK->message + i)) return 0;
  return 1;
}

/* The instruction right before the current one must be the Ed25519 precompile; WORK->precompile becomes its data.
 * The sysvar: u16 count, u16 offset of each; each is u16 accounts, 33 bytes per account, program, u16 length, data;
 * its last two bytes are the index of the current instruction. */
NOINLINE u64 find_precompile(const Account *sysvar) {
  const u8 *p = sysvar->data;
  u64 size = sysvar->length;
  REQUIRE(same(sysvar->key, &INSTRUCTIONS_SYSVAR), E_INSTRUCTIONS_ADDRESS);        /* 1 */
  REQUIRE(size >= 4, E_PRECOMPILE_MISSING);                                        /* 2 */
  u64 current = read_u16(p + size - 2);
  REQUIRE(current >= 1 && current < read_u16(p), E_PRECOMPILE_MISSING);            /* 3 */
  u64 at = read_u16(p + 2 + 2 * (current - 1));
  REQUIRE(at + 2 <= size, E_PRECOMPILE_LENGTH);                                    /* 4 */
  at += 2 + 33UL * read_u16(p + at);
  REQUIRE(at + 34 <= size, E_PRECOMPILE_LENGTH);                                   /* 5 */
  REQUIRE(same(p + at, &ED25519_PRECOMPILE), E_PRECOMPILE_PROGRAM);                /* 6 */
  u64 length = read_u16(p + at + 32);
  REQUIRE(at + 34 + length <= size, E_PRECOMPILE_LENGTH);                          /* 7 */
  REQUIRE(length >= PRECOMPILE_HEAD, E_PRECOMPILE_LENGTH);                         /* 8 */
  WORK->precompile = (Slice){p + at + 34, length};
  WORK->statements = p[at + 34];
  REQUIRE(PRECOMPILE_HEAD + WORK->statements * sizeof(PrecompileEntry) <= length, E_PRECOMPILE_LENGTH); /* 9 */
  return 0;
}

/* Statement number `i` < WORK->statements. */
NOINLINE u64 read_statement(u64 i, Statement *out) {
  const u8 *data = WORK->precompile.data;
  u64 length = WORK->precompile.length;
  const PrecompileEntry *e = (const PrecompileEntry *)(data + PRECOMPILE_HEAD) + i;
  REQUIRE(e->signature_instruction == PRECOMPILE_SELF, E_PRECOMPILE_FOREIGN);      /* 1 */
  REQUIRE(e->key_instruction == PRECOMPILE_SELF, E_PRECOMPILE_FOREIGN);            /* 2 */
  REQUIRE(e->message_instruction == PRECOMPILE_SELF, E_PRECOMPILE_FOREIGN);        /* 3 */
  REQUIRE(e->key_at + sizeof(Key) <= length, E_PRECOMPILE_LENGTH);                 /* 4 */
  REQUIRE(e->message_at + STATEMENT_BYTES <= length, E_PRECOMPILE_LENGTH);         /* 5 */
  REQUIRE(e->message_length == STATEMENT_BYTES, E_PRECOMPILE_MESSAGE);             /* 6 */
  *out = (Statement){(const Key *)(data + e->key_at), data + e->message_at};
  return 0;
}

/* The seat of a key, or COMMITTEE_MAX. */
INLINE u64 seat_of(const Job *j, const void *key) {
  u64 i = 0;
  while (i < j->k && !same(&j->committee[i], key)) i++;
  return i < j->k ? i : COMMITTEE_MAX;
}

/* The first `count` statements are WORK->message, of distinct members, and at least `quorum`. */
NOINLINE u64 check_members(const Job *j, u64 count, u64 quorum) {
  u64 signed_seats = 0;
  Statement s;
  for (u64 i = 0; i < count; i++) {
    TRY(read_statement(i, &s));                                                    /* 1 */
    REQUIRE(same_message(s.message), E_PRECOMPILE_MESSAGE);                        /* 2 */
    u64 seat = seat_of(j, s.key);
    REQUIRE(seat < COMMITTEE_MAX, E_SIGNER_STRANGER);                              /* 3 */
    REQUIRE(!(signed_seats >> seat & 1), E_SIGNER_TWICE);                          /* 4 */
    signed_seats |= 1UL << seat;
  }
  REQUIRE(count >= quorum, E_QUORUM);                                              /* 5: all were distinct members */
  return 0;
}

/* The last statement is the worker's own claim of the result that FRAUD convicts. */
NOINLINE u64 check_claim(const SettleData *d) {
  Statement s;
  build_message(MESSAGE_CLAIM, d->sequence, 0, &d->result_hash);
  TRY(read_statement(WORK->statements - 1, &s));                                   /* 1 */
  REQUIRE(same(s.key, &d->worker), E_CLAIM_SIGNATURE);                             /* 2 */
  REQUIRE(same_message(s.message), E_CLAIM_SIGNATURE);                             /* 3 */
  return 0;
}

/* A quorum signed the settlement `d` of `j`; for FRAUD the worker also signed the claim, behind the members. */
NOINLINE u64 check_quorum(const Account *sysvar, const Input *in, const Config *c, const Job *j, const SettleData *d) {
  TRY(find_precompile(sysvar));                                                    /* 1 */
  hash_context(c, in, &j->job, &j->open_slot);
  hash_settlement(d);
  build_message(MESSAGE_SETTLE, d->sequence, d->round, &WORK->digest);
  if (d->verdict != FRAUD) return check_members(j, WORK->statements, j->m);        /* 2 */
  REQUIRE(WORK->statements, E_QUORUM);                                             /* 3 */
  TRY(check_members(j, WORK->statements - 1, fraud_quorum_of(j->k)));              /* 4 */
  return check_claim(d);                                                           /* 5 */
}
