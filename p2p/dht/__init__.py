"""The network's kad-DHT: libp2p's handlers, frames and routing table, behind bounds of our own."""
