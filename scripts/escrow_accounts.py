"""Which accounts each instruction of the escrow program takes, in order: the one table of the IDL.

A name, then `s` if it signs, `w` if it is written, `?` if it may be left out together with all behind it. What `MORE`
names follows: as many accounts as the job says. A test compares the table with what the production encoders send.
"""

ACCOUNTS: dict[str, list[str]] = {
    "initialise": ["admin sw", "config w", "stake_vault w", "mint", "token_program", "system_program", "program_data"],
    "register": ["signer sw", "config", "node w", "funding w", "stake_vault w", "token_program", "system_program"],
    "open_job": ["requester sw", "config", "job w", "vault w", "funding w", "mint", "token_program", "system_program"],
    "seat": ["job w", "config", "slot_hashes", "submitter sw"],
    "settle": [
        "job w", "config", "instructions_sysvar", "submitter sw", "worker_node w?", "vault w?", "payout w?",
        "treasury_account w?", "token_program ?",
    ],
    "close_job": ["job w", "config", "vault w", "requester w", "refund w", "stake_vault w", "token_program"],
    "refund_expired": ["job w", "config", "vault w", "requester w", "refund w", "stake_vault w", "token_program"],
    "request_unstake": ["signer s", "config", "node w"],
    "withdraw_stake": ["config", "node w", "stake_vault w", "payout w", "token_program"],
    "withdraw_earned": ["config", "node w", "stake_vault w", "payout w", "token_program"],
    "slash_equivocation": [
        "config", "node w", "stake_vault w", "treasury_account w", "token_program", "instructions_sysvar",
    ],
}  # fmt: skip

MORE: dict[str, tuple[str, bool]] = {
    "seat": ("the Node of each member, in rising ticket order", False),
    "close_job": ("the treasury's token account if a stake was slashed; the Node of each seat with a share", True),
    "refund_expired": ("the Node of each seat with a share, in seat order", True),
}
"""Further accounts and whether they are written."""
