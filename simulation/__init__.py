"""Seeded worlds: the real nodes on an in-memory network, in virtual time, with the real escrow program (DESIGN 13)."""
