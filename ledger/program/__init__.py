"""The escrow program: C sources, their build, and the committed result (`escrow.so` with its sha256)."""
