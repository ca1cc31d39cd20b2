/* Accounts and instructions, byte by byte (offsets on the left; all integers little-endian, as on Solana).
 *
 * An account of ours opens with its tag and version; nobody else can write bytes into an account that we own, so a
 * tag proves that this program made it. Times are Unix seconds, money is micro-CYX, ids are 32 bytes.
 */
#pragma once
#include "sol.h"

enum { CONFIG_TAG = 0xC1, NODE_TAG = 0xC2, JOB_TAG = 0xC3, LAYOUT_VERSION = 2 };
enum {
  INITIALISE = 0, REGISTER = 1, OPEN_JOB = 2, SEAT = 3, SETTLE = 4, CLOSE_JOB = 5, REFUND_EXPIRED = 6,
  REQUEST_UNSTAKE = 7, WITHDRAW_STAKE = 8, WITHDRAW_EARNED = 9, SLASH_EQUIVOCATION = 10,
};
enum { OPEN = 1, SEATED = 2, SETTLED = 3 };
enum { VERDICT_OK = 1, FAILED = 2, UNSOLD = 3, CANCELLED = 4, PARTIAL = 5, FRAUD = 6 };
enum { MESSAGE_AWARD = 1, MESSAGE_HANDOVER = 2, MESSAGE_SETTLE = 3, MESSAGE_CLAIM = 4 };

#define COMMITTEE_MAX 7
#define SEAT_DEADLINE_SLOTS 400
#define SETTLEMENTS_MAX 8
#define SIGNATURE_LAMPORTS 5000 /* what a cluster charges for each signature that it verifies, the precompile's too */
#define FEE_BPS_MAX 1000
#define BPS 10000
#define AMOUNT_MAX ((1UL << 63) / BPS) /* no product with basis points overflows 64 bits */
#define TIME_MAX (1UL << 40)           /* no sum of two times overflows */
#define CYX_DECIMALS 6
#define TOKEN_ACCOUNT_BYTES 165
#define MINT_BYTES 82

typedef struct {
  /*   0 */ u8 tag, version, bump, stake_vault_bump;
  /*   4 */ u16 fee_bps, verifier_share_bps;
  /*   8 */ Key admin;
  /*  40 */ Key genesis;
  /*  72 */ Key mint;
  /* 104 */ Key treasury;     /* a wallet */
  /* 136 */ Key treasury_ata; /* its associated token account */
  /* 168 */ u64 minimum_stake;
  /* 176 */ u64 unbonding_s;
  /* 184 */ u64 grace_s;
} Config; /* 192 bytes, PDA ["config"] */

typedef struct {
  /*   0 */ u8 tag, version, bump, retired, pad[4]; /* retired: convicted of equivocation, never again a node */
  /*   8 */ Key node;
  /*  40 */ Key execution_class;
  /*  72 */ Key payout;     /* a wallet */
  /* 104 */ Key payout_ata; /* its associated token account */
  /* 136 */ u64 active_since_slot;
  /* 144 */ u64 stake;
  /* 152 */ u64 earned;
  /* 160 */ u64 fees_generated;
  /* 168 */ u64 slashed;
  /* 176 */ u64 unbonding_at_s; /* from then on the stake can be withdrawn; 0: not unbonding */
  /* 184 */ u32 jobs_ok, failures;
} Node; /* 192 bytes, PDA ["node", key] */

typedef struct {
  /*   0 */ u8 tag, version, bump, vault_bump, state, verdict, k, m; /* verdict: of the last settlement; 0: none */
  /*   8 */ u8 fee_mask, pad[3]; /* seats whose verdict counted in any settlement */
  /*  12 */ u16 fee_bps, verifier_share_bps; /* as they were when the job was opened */
  /*  16 */ Key job;
  /*  48 */ Key requester;
  /*  80 */ Key spec_hash;
  /* 112 */ Key execution_class;
  /* 144 */ u64 budget;
  /* 152 */ u64 open_slot;
  /* 160 */ u64 work_deadline_s;
  /* 168 */ u64 refund_at_s;
  /* 176 */ u32 units_total, units_paid;
  /* 184 */ u32 settlements, pad2;
  /* 192 */ u64 paid;            /* price of the paid units, fee included */
  /* 200 */ u64 slashed;         /* micro-CYX of the worker's stake that close_job moves to the treasury */
  /* 208 */ Key worker;          /* of the last settlement; zero: none */
  /* 240 */ Key result_hash;
  /* 272 */ Key committee[COMMITTEE_MAX];  /* rising ticket order; zero beyond k */
  /* 496 */ u64 shares[COMMITTEE_MAX];     /* part of `paid` that waits in the vault to be credited to each seat */
} Job; /* 552 bytes, PDA ["job", job id]; its tokens lie in the vault, PDA ["vault", job id] */

_Static_assert(sizeof(Config) == 192 && sizeof(Node) == 192 && sizeof(Job) == 552, "layout");

/* Instructions. The first byte is the instruction's number. */
typedef struct {
  /*  0 */ u8 tag, pad[3];
  /*  4 */ u16 fee_bps, verifier_share_bps;
  /*  8 */ Key genesis, treasury;
  /* 72 */ u64 minimum_stake, unbonding_s, grace_s;
} InitialiseData; /* 96 */

typedef struct {
  /*  0 */ u8 tag, pad[7];
  /*  8 */ u64 stake; /* to add; may be 0 for a node that has enough */
  /* 16 */ Key execution_class, payout;
} RegisterData; /* 80 */

typedef struct {
  /*   0 */ u8 tag, k, pad[2];
  /*   4 */ u32 units_total;
  /*   8 */ u64 budget, work_deadline_s, refund_at_s;
  /*  32 */ Key nonce, spec_hash, execution_class;
} OpenJobData; /* 128 */

typedef struct {
  /*  0 */ u8 tag, verdict, fee_mask, sequence;
  /*  4 */ u32 units;
  /*  8 */ u64 price;
  /* 16 */ Key worker, result_hash;
  /* 80 */ u16 round, pad[3];
} SettleData; /* 88 */

typedef struct {
  /*  0 */ u8 tag, pad[7];
  /*  8 */ Key job;
  /* 40 */ u64 open_slot;
  /* 48 */ Key first, second; /* the digests that the two statements bind to the job's context */
} SlashData; /* 112 */

_Static_assert(sizeof(InitialiseData) == 96 && sizeof(RegisterData) == 80, "layout");
_Static_assert(sizeof(OpenJobData) == 128 && sizeof(SettleData) == 88 && sizeof(SlashData) == 112, "layout");
