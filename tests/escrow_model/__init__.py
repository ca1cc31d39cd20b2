"""The escrow program as a pure model, and a game that the real program and the model play side by side."""
