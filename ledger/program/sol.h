/* The Solana runtime as plain C sees it: types, syscalls, and the parser of the program's input.
 *
 * Law of this file: the input is laid out by the loader ("aligned" serialization), so its shape is trusted; what
 * the accounts hold is not. All scratch memory lives in the 32 KiB heap, which is zeroed for every invocation,
 * because a BPF stack frame holds 512 bytes. sBPF allows unaligned loads and stores, so structs may lie anywhere.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

#define NOINLINE static __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))
#define ACCOUNTS_MAX 20
#define HEAP_START 0x300000000UL
#define REALLOC_PADDING 10240

typedef struct { u64 w[4]; } Key; /* 32 bytes: a public key or a sha256 hash */
typedef struct { const void *data; u64 length; } Slice;
typedef struct { const Slice *seeds; u64 count; } Signer;
typedef struct { const Key *key; u8 is_writable, is_signer; } Meta;
typedef struct { const Key *program; const Meta *metas; u64 meta_count; const u8 *data; u64 length; } Call;
typedef struct { u64 slot; i64 epoch_start; u64 epoch, leader_epoch; i64 unix_s; } Clock;
typedef struct { u64 lamports_per_byte, threshold_bits; u8 burn_percent; } Rent;
typedef struct { /* what sol_invoke_signed_c calls SolAccountInfo */
  Key *key;
  u64 *lamports;
  u64 length;
  u8 *data;
  Key *owner;
  u64 rent_epoch;
  u8 is_signer, is_writable, executable;
} Account;

typedef struct {
  Account accounts[ACCOUNTS_MAX];
  u64 count;
  const u8 *data; /* the instruction's own bytes */
  u64 length;
  const Key *program;
} Input;

typedef struct { /* every byte of scratch memory, in one place */
  Input input;
  Slice seeds[4];
  Slice slices[8];
  Signer signer;
  Meta metas[4];
  Call call;
  u8 call_data[64];
  Slice precompile; /* data of the Ed25519 instruction right before ours */
  u64 statements;   /* signatures in it */
  Clock clock;
  Rent rent;
  Key hash, context, digest;
  u8 message[40];
  u8 bump[8];
  u8 kind;
} Work;
#define WORK ((Work *)HEAP_START)

extern u64 sol_sha256(const Slice *, u64, void *);
extern u64 sol_get_clock_sysvar(Clock *);
extern u64 sol_get_rent_sysvar(Rent *);
extern u64 sol_create_program_address(const Slice *, u64, const Key *program, Key *out);
extern u64 sol_try_find_program_address(const Slice *, u64, const Key *program, Key *out, u8 *bump);
extern u64 sol_invoke_signed_c(const Call *, const Account *, u64, const Signer *, u64);

#define REQUIRE(condition, error) do { if (!(condition)) return (error); } while (0)
#define TRY(call) do { u64 error_ = (call); if (error_) return error_; } while (0)

INLINE u16 read_u16(const void *p) { return *(const u16 *)p; }
INLINE u64 read_u64(const void *p) { return *(const u64 *)p; }
INLINE void write_u64(void *p, u64 value) { *(u64 *)p = value; }
INLINE int same(const void *a, const void *b) {
  const Key *x = a, *y = b;
  return x->w[0] == y->w[0] && x->w[1] == y->w[1] && x->w[2] == y->w[2] && x->w[3] == y->w[3];
}
INLINE int is_zero(const Key *k) { return !(k->w[0] | k->w[1] | k->w[2] | k->w[3]); }
INLINE void copy_key(void *to, const void *from) {
  const u64 *s = from;
  u64 *d = to;
  for (int i = 0; i < 4; i++) d[i] = s[i];
}

/* Point `in` at the accounts and the instruction data; returns 1 when there are more accounts than ACCOUNTS_MAX. */
INLINE int parse_input(u8 *p, Input *in) {
  in->count = read_u64(p);
  p += 8;
  if (in->count > ACCOUNTS_MAX) return 1;
  for (u64 i = 0; i < in->count; i++) {
    Account *a = &in->accounts[i];
    if (*p != 0xff) { /* the same account again: a copy of the earlier entry, sharing its memory */
      *a = in->accounts[*p];
      p += 8;
      continue;
    }
    a->is_signer = p[1];
    a->is_writable = p[2];
    a->executable = p[3];
    a->key = (Key *)(p + 8);
    a->owner = (Key *)(p + 40);
    a->lamports = (u64 *)(p + 72);
    a->length = read_u64(p + 80);
    a->data = p + 88;
    p += 88 + a->length + REALLOC_PADDING;
    p = (u8 *)(((u64)p + 7) & ~7UL);
    a->rent_epoch = read_u64(p);
    p += 8;
  }
  in->length = read_u64(p);
  in->data = p + 8;
  in->program = (const Key *)(p + 8 + in->length);
  return 0;
}
