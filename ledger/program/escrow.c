/* The escrow program of cyxnode: the only judge of who is paid. One translation unit; read in this order:
 * layout.h (accounts, instructions), errors.h, checks.h, then one file per step of a job's life:
 * setup.h -> open.h -> quorum.h -> settle.h -> close.h; and of a node's: setup.h -> stake.h -> slash.h.
 * Underneath: sol.h (runtime), invoke.h (calls), keys.h.
 */
#include "close.h"
#include "open.h"
#include "settle.h"
#include "setup.h"
#include "slash.h"
#include "stake.h"

u64 entrypoint(u8 *input) {
  Input *in = &WORK->input;
  REQUIRE(!parse_input(input, in), E_ACCOUNTS_TOO_MANY);
  REQUIRE(in->length >= 1, E_INSTRUCTION_LENGTH);
  switch (in->data[0]) {
    case INITIALISE: return initialise(in);
    case REGISTER: return register_node(in);
    case OPEN_JOB: return open_job(in);
    case SEAT: return seat(in);
    case SETTLE: return settle(in);
    case CLOSE_JOB: return close_job(in);
    case REFUND_EXPIRED: return refund_expired(in);
    case REQUEST_UNSTAKE: return request_unstake(in);
    case WITHDRAW_STAKE: return withdraw_stake(in);
    case WITHDRAW_EARNED: return withdraw_earned(in);
    case SLASH_EQUIVOCATION: return slash_equivocation(in);
    default: return E_INSTRUCTION_UNKNOWN;
  }
}
