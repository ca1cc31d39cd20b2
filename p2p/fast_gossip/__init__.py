"""Gossip at a quarter of the library's cost: one message travels from socket to sockets in one step of one task.

The library spends most of its time not on cryptography but on scheduling: every copy of a message passes some hundred
task steps and seventy locks. Here the bytes that the socket holds are taken at once, all their Noise packets, yamux
frames and gossip RPCs handled where they are found, and what must be forwarded is encrypted and sent from there:

    reader.py -> rpc_stream.py -> pubsub.py -> outbox.py -> writer.py

Everything that is not plain data of a gossip stream (opening, closing and resetting streams, pings, other protocols)
still goes through the library's own code, byte for byte the same. Nothing of the library is replaced in place: hosts
that go this way are built of the subclasses in `connection.py` and `pubsub.py`, so that one process may hold both
kinds, and the switch in `internals.py` decides for each transport.
"""
