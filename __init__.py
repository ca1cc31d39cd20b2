"""cyxnode: a peer-to-peer network that sells verified compute."""

__version__ = "0.1.0"
