/* A stranger's program that calls another one for whoever asks: account 0 is that program, the first byte of the data
 * how often, the rest what it is told; accounts and their flags are passed on as they came. */
#include "../../ledger/program/sol.h"

#define METAS ((Meta *)(HEAP_START + sizeof(Work)))

u64 entrypoint(u8 *input) {
  Input *in = &WORK->input;
  if (parse_input(input, in)) return 1;
  for (u64 i = 1; i < in->count; i++) {
    const Account *a = &in->accounts[i];
    METAS[i - 1] = (Meta){a->key, a->is_writable, a->is_signer};
  }
  WORK->call = (Call){in->accounts[0].key, METAS, in->count - 1, in->data + 1, in->length - 1};
  for (u8 times = in->data[0]; times; times--) TRY(sol_invoke_signed_c(&WORK->call, in->accounts, in->count, &WORK->signer, 0));
  return 0;
}
