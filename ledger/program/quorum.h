/* A quorum: enough distinct committee members signed one message, as the Ed25519 precompile has just verified.
 *
 * The precompile is the instruction right before ours. It may be told to read keys, signatures and messages from
 * any instruction of the transaction, so we accept only data that lies within itself: what we read is what it checked.
 */
#pragma once
#include "checks.h"

#define PRECOMPILE_SELF 0xffff
#define PRECOMPILE_HEAD 2
typedef struct {
  u16 signature_at, signature_instruction, key_at, key_instruction, message_at, message_length, message_instruction;
} PrecompileEntry; /* 14 bytes */

/* The 40 bytes that every signer signed: "CYX1", kind, sequence, round, sha256(context | digest). */
NOINLINE void build_message(const Config *c, const Input *in, const Job *j, u8 kind, const SettleData *d) {
  WORK->slices[0] = (Slice){&c->genesis, sizeof(Key)};
  WORK->slices[1] = (Slice){in->program, sizeof(Key)};
  WORK->slices[2] = (Slice){&j->job, sizeof(Key)};
  WORK->slices[3] = (Slice){&j->open_slot, 8};
  sol_sha256(WORK->slices, 4, &WORK->context);
  WORK->slices[0] = (Slice){"cyx/settle", 10};
  WORK->slices[1] = (Slice){&d->verdict, 1};
  WORK->slices[2] = (Slice){&d->worker, sizeof(Key)};
  WORK->slices[3] = (Slice){&d->price, 8};
  WORK->slices[4] = (Slice){&d->units, 4};
  WORK->slices[5] = (Slice){&d->result_hash, sizeof(Key)};
  WORK->slices[6] = (Slice){&d->fee_mask, 1};
  sol_sha256(WORK->slices, 7, &WORK->digest);
  WORK->slices[0] = (Slice){&WORK->context, sizeof(Key)};
  WORK->slices[1] = (Slice){&WORK->digest, sizeof(Key)};
  sol_sha256(WORK->slices, 2, WORK->message + 8);
  u8 *m = WORK->message;
  m[0] = 'C', m[1] = 'Y', m[2] = 'X', m[3] = '1', m[4] = kind, m[5] = d->sequence;
  *(u16 *)(m + 6) = d->round;
}

INLINE int same_message(const u8 *p) {
  for (int i = 0; i < 40; i += 8)
    if (read_u64(p + i) != read_u64(WORK->message + i)) return 0;
  return 1;
}

/* Data of the instruction right before the current one, which must be the Ed25519 precompile.
 * The sysvar: u16 count, u16 offset of each; each is u16 accounts, 33 bytes per account, program, u16 length, data;
 * its last two bytes are the index of the current instruction. */
NOINLINE u64 find_precompile(const Account *sysvar, Slice *out) {
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
  *out = (Slice){p + at + 34, read_u16(p + at + 32)};
  REQUIRE(at + 34 + out->length <= size, E_PRECOMPILE_LENGTH);                     /* 7 */
  return 0;
}

/* The seat of a key, or COMMITTEE_MAX. */
INLINE u64 seat_of(const Job *j, const void *key) {
  u64 i = 0;
  while (i < j->k && !same(&j->committee[i], key)) i++;
  return i < j->k ? i : COMMITTEE_MAX;
}

/* At least j->m distinct members signed WORK->message. */
NOINLINE u64 check_quorum(const Account *sysvar, const Job *j) {
  Slice *found = &WORK->slices[0];
  TRY(find_precompile(sysvar, found));                                             /* 1 */
  const u8 *data = found->data;
  u64 length = found->length, signed_seats = 0;
  REQUIRE(length >= PRECOMPILE_HEAD, E_PRECOMPILE_LENGTH);                         /* 2 */
  u64 count = data[0];
  REQUIRE(PRECOMPILE_HEAD + count * sizeof(PrecompileEntry) <= length, E_PRECOMPILE_LENGTH); /* 3 */
  for (u64 i = 0; i < count; i++) {
    const PrecompileEntry *e = (const PrecompileEntry *)(data + PRECOMPILE_HEAD) + i;
    REQUIRE(e->signature_instruction == PRECOMPILE_SELF, E_PRECOMPILE_FOREIGN);    /* 4 */
    REQUIRE(e->key_instruction == PRECOMPILE_SELF, E_PRECOMPILE_FOREIGN);          /* 5 */
    REQUIRE(e->message_instruction == PRECOMPILE_SELF, E_PRECOMPILE_FOREIGN);      /* 6 */
    REQUIRE(e->key_at + 32UL <= length, E_PRECOMPILE_LENGTH);                      /* 7 */
    REQUIRE(e->message_at + 40UL <= length, E_PRECOMPILE_LENGTH);                  /* 8 */
    REQUIRE(e->message_length == 40, E_PRECOMPILE_MESSAGE);                        /* 9 */
    REQUIRE(same_message(data + e->message_at), E_PRECOMPILE_MESSAGE);             /* 10 */
    u64 seat = seat_of(j, data + e->key_at);
    REQUIRE(seat < COMMITTEE_MAX, E_SIGNER_STRANGER);                              /* 11 */
    REQUIRE(!(signed_seats >> seat & 1), E_SIGNER_TWICE);                          /* 12 */
    signed_seats |= 1UL << seat;
  }
  REQUIRE(count >= j->m, E_QUORUM);                                                /* 13: all were distinct members */
  return 0;
}
