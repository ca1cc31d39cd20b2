/* Addresses derived from seeds, and calls to the System and Token programs.
 *
 * CreateAccount refuses an address that has lamports, so anyone could block one for ever by sending it a few
 * beforehand: such an account of ours is made by top-up transfer, allocate and assign instead.
 */
#pragma once
#include "errors.h"
#include "keys.h"
#include "layout.h"

enum { SYSTEM_CREATE = 0, SYSTEM_ASSIGN = 1, SYSTEM_TRANSFER = 2, SYSTEM_ALLOCATE = 8 };
enum { TOKEN_TRANSFER = 3, TOKEN_CLOSE_ACCOUNT = 9, TOKEN_INITIALIZE_ACCOUNT_3 = 18 };

/* Seeds [name, id?, bump?] become the current seeds and the current signer. */
INLINE void seeds(const char *name, u64 length, const Key *id, const u8 *bump) {
  u64 n = 0;
  WORK->seeds[n++] = (Slice){name, length};
  if (id) WORK->seeds[n++] = (Slice){id, sizeof(Key)};
  if (bump) WORK->seeds[n++] = (Slice){bump, 1};
  WORK->signer = (Signer){WORK->seeds, n};
}
#define SEEDS(name, id, bump) seeds(name, sizeof(name) - 1, id, bump)

/* Whether the current seeds, bump included, give the address of `a`. */
NOINLINE u64 require_address(const Account *a, const Input *in, u64 error) {
  Key *address = &WORK->hash;
  REQUIRE(!sol_create_program_address(WORK->seeds, WORK->signer.count, in->program, address), error);
  REQUIRE(same(a->key, address), error);
  return 0;
}

/* Whether the current seeds give the address of `a` with the canonical bump, which is appended to the seeds. */
NOINLINE u64 require_canonical(const Account *a, const Input *in, u8 *bump, u64 error) {
  Key *address = &WORK->hash;
  REQUIRE(!sol_try_find_program_address(WORK->seeds, WORK->signer.count, in->program, address, bump), error);
  REQUIRE(same(a->key, address), error);
  WORK->seeds[WORK->signer.count] = (Slice){bump, 1};
  WORK->signer.count++;
  return 0;
}

/* Associated token account of a wallet. */
NOINLINE void associated_address(const Key *wallet, const Key *mint, Key *out) {
  WORK->slices[0] = (Slice){wallet, sizeof(Key)};
  WORK->slices[1] = (Slice){&TOKEN_PROGRAM, sizeof(Key)};
  WORK->slices[2] = (Slice){mint, sizeof(Key)};
  sol_try_find_program_address(WORK->slices, 3, &ASSOCIATED_TOKEN_PROGRAM, out, &WORK->bump[7]);
}

INLINE void meta(int i, const Account *a, int writable, int signer) {
  WORK->metas[i] = (Meta){a->key, writable, signer};
}

/* Call `program` with the first `metas` of WORK->metas; `as_pda` signs with the current seeds. */
NOINLINE u64 call(const Key *program, u64 metas, u64 length, u64 as_pda) {
  WORK->call = (Call){program, WORK->metas, metas, WORK->call_data, length};
  return sol_invoke_signed_c(&WORK->call, WORK->input.accounts, WORK->input.count, &WORK->signer, as_pda);
}

NOINLINE u64 token_transfer(const Account *from, const Account *to, const Account *authority, u64 amount, u64 as_pda) {
  if (amount == 0) return 0;
  meta(0, from, 1, 0);
  meta(1, to, 1, 0);
  meta(2, authority, 0, 1);
  WORK->call_data[0] = TOKEN_TRANSFER;
  write_u64(WORK->call_data + 1, amount);
  return call(&TOKEN_PROGRAM, 3, 9, as_pda);
}

/* Close an empty token account of the current PDA signer; its lamports go to `to`. */
NOINLINE u64 token_close(const Account *account, const Account *to, const Account *authority) {
  meta(0, account, 1, 0);
  meta(1, to, 1, 0);
  meta(2, authority, 0, 1);
  WORK->call_data[0] = TOKEN_CLOSE_ACCOUNT;
  return call(&TOKEN_PROGRAM, 3, 1, 1);
}

/* Rent-exempt minimum of an account with `length` bytes; the threshold is a float, of which two values are known. */
NOINLINE u64 rent_minimum(u64 length, u64 *out) {
  REQUIRE(!sol_get_rent_sysvar(&WORK->rent), E_RENT);
  u64 base = (128 + length) * WORK->rent.lamports_per_byte;
  REQUIRE(WORK->rent.threshold_bits == 0x3ff0000000000000 || WORK->rent.threshold_bits == 0x4000000000000000, E_RENT);
  *out = WORK->rent.threshold_bits == 0x3ff0000000000000 ? base : 2 * base;
  return 0;
}

/* Make `a`, which has lamports already, an account of `length` zero bytes with at least `lamports`. */
NOINLINE u64 create_funded(const Account *payer, const Account *a, u64 lamports, u64 length, const Key *owner) {
  if (*a->lamports < lamports) {
    meta(0, payer, 1, 1);
    meta(1, a, 1, 0);
    *(u32 *)WORK->call_data = SYSTEM_TRANSFER;
    write_u64(WORK->call_data + 4, lamports - *a->lamports);
    TRY(call(&SYSTEM_PROGRAM, 2, 12, 0));
  }
  meta(0, a, 1, 1);
  *(u32 *)WORK->call_data = SYSTEM_ALLOCATE;
  write_u64(WORK->call_data + 4, length);
  TRY(call(&SYSTEM_PROGRAM, 1, 12, 1));
  meta(0, a, 1, 1);
  *(u32 *)WORK->call_data = SYSTEM_ASSIGN;
  copy_key(WORK->call_data + 4, owner);
  return call(&SYSTEM_PROGRAM, 1, 36, 1);
}

/* Make `a`, the address of the current seeds, an account of `length` zero bytes that belongs to `owner` and holds
 * `deposit` lamports beside its rent. */
NOINLINE u64 create(const Account *payer, const Account *a, u64 length, const Key *owner, u64 deposit) {
  u64 lamports;
  REQUIRE(same(a->owner, &SYSTEM_PROGRAM) && a->length == 0, E_ACCOUNT_IN_USE);
  REQUIRE(a->is_writable, E_NOT_WRITABLE);
  TRY(rent_minimum(length, &lamports));
  lamports += deposit;
  REQUIRE(*payer->lamports + *a->lamports >= lamports, E_LAMPORTS);
  if (*a->lamports) return create_funded(payer, a, lamports, length, owner);
  meta(0, payer, 1, 1);
  meta(1, a, 1, 1);
  *(u32 *)WORK->call_data = SYSTEM_CREATE;
  write_u64(WORK->call_data + 4, lamports);
  write_u64(WORK->call_data + 12, length);
  copy_key(WORK->call_data + 20, owner);
  return call(&SYSTEM_PROGRAM, 2, 52, 1);
}

/* Make `a`, the address of the current seeds, a token account of `mint` under `authority`. */
NOINLINE u64 create_token_account(const Account *payer, const Account *a, const Account *mint, const Key *authority) {
  TRY(create(payer, a, TOKEN_ACCOUNT_BYTES, &TOKEN_PROGRAM, 0));
  meta(0, a, 1, 0);
  meta(1, mint, 0, 0);
  WORK->call_data[0] = TOKEN_INITIALIZE_ACCOUNT_3;
  copy_key(WORK->call_data + 1, authority);
  return call(&TOKEN_PROGRAM, 2, 33, 0);
}

/* Give back to whoever submitted a step what its signatures cost, from the job's deposit. Calls to other programs
 * come before it: they must find lamports as the runtime knows them. */
INLINE void reimburse(const Account *job, const Account *submitter, u64 signatures) {
  u64 lamports = signatures * SIGNATURE_LAMPORTS;
  *job->lamports -= lamports;
  *submitter->lamports += lamports;
}
