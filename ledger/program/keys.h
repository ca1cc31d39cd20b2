/* Addresses that the program compares with, as little-endian words. A test decodes each base58 name beside it. */
#pragma once
#include "sol.h"

static const Key SYSTEM_PROGRAM = {{0, 0, 0, 0}}; /* 11111111111111111111111111111111 */
static const Key TOKEN_PROGRAM = {{ /* TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA */
    0x93a165d7e1f6dd06, 0xac79ebce46e1cbd9, 0x91375b5fed85b41c, 0xa900ff7e85f58c3a}};
static const Key ASSOCIATED_TOKEN_PROGRAM = {{ /* ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL */
    0xf189244e8f25978c, 0x830d8e1429103dbb, 0x8410ffda99135a0b, 0x59f8e9dbd87b8e04}};
static const Key INSTRUCTIONS_SYSVAR = {{ /* Sysvar1nstructions1111111111111111111111111 */
    0x66d17b1817d5a706, 0xc0c2fd5504d4da35, 0xa57556218fc624c1, 0x000000085fcbbadb}};
static const Key SLOT_HASHES_SYSVAR = {{ /* SysvarS1otHashes111111111111111111111111111 */
    0xaf0a2f1917d5a706, 0x7acc77fbe365f2c6, 0x133bbed029c582da, 0x0000002055002d6e}};
static const Key ED25519_PRECOMPILE = {{ /* Ed25519SigVerify111111111111111111111111111 */
    0xbefb937cd6467d03, 0xff408d838f42f912, 0x648af42749747005, 0x000000804470cafc}};
static const Key UPGRADEABLE_LOADER = {{ /* BPFLoaderUpgradeab1e11111111111111111111111 */
    0xb0a1884e91f6a802, 0x2bae63f73e1510e2, 0xd224c1163db9c200, 0x00008004107a53c0}};
