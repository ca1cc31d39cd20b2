"""The JSON-RPC methods that describe the local chain itself: slots, blocks, epochs, supply, its one node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..protocol.limits import BLOCKS_PAGE_MAX
from ..protocol.units import base58
from .account_format import decimals_of
from .addresses import local_keypair
from .cluster import FAUCET_LAMPORTS, SLOTS_PER_EPOCH, LocalCluster
from .rpc_json import Json
from .rpc_params import BLOCK_CLEANED_UP, BLOCK_NOT_AVAILABLE, INVALID_PARAMS, Params, RpcFault
from .transaction_json import transaction_encoding, transaction_json

CORE_VERSION = "4.1.2"
_DETAILS = ("full", "signatures", "none")


class ChainMethods:
    """Handlers for `RpcMethods`, in `table`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._node = str(local_keypair("node").pubkey())
        self.table: dict[str, Callable[[Params], Any]] = {
            "getHealth": lambda _: "ok",
            "getVersion": lambda _: {"solana-core": CORE_VERSION, "feature-set": 0},
            "getIdentity": lambda _: {"identity": self._node},
            "getGenesisHash": lambda _: base58(cluster.genesis_hash),
            "getSlot": lambda _: cluster.slot,
            "getBlockHeight": lambda _: cluster.slot,
            "getSlotLeader": lambda _: self._node,
            "getClusterNodes": self._cluster_nodes,
            "getVoteAccounts": lambda _: {"current": [], "delinquent": []},
            "getEpochInfo": self._epoch_info,
            "getEpochSchedule": self._epoch_schedule,
            "getSupply": self._supply,
            "getTransactionCount": lambda _: cluster.transaction_count,
            "getBlock": self._block,
            "getBlocks": self._blocks,
            "getBlocksWithLimit": self._blocks_with_limit,
            "getBlockTime": lambda params: cluster.block_time(params.natural(0)),
            "getFirstAvailableBlock": lambda _: cluster.first_slot,
            "minimumLedgerSlot": lambda _: cluster.first_slot,
        }

    def _cluster_nodes(self, _: Params) -> list[Json]:
        return [
            {
                "pubkey": self._node, "gossip": None, "tpu": None, "rpc": None, "pubsub": None,
                "version": CORE_VERSION, "featureSet": 0, "shredVersion": 0,
            }
        ]  # fmt: skip

    def _epoch_info(self, _: Params) -> Json:
        slot = self._cluster.slot
        return {
            "absoluteSlot": slot, "blockHeight": slot, "epoch": self._cluster.epoch,
            "slotIndex": slot % SLOTS_PER_EPOCH, "slotsInEpoch": SLOTS_PER_EPOCH,
            "transactionCount": self._cluster.transaction_count,
        }  # fmt: skip

    def _epoch_schedule(self, _: Params) -> Json:
        return {
            "slotsPerEpoch": SLOTS_PER_EPOCH, "leaderScheduleSlotOffset": SLOTS_PER_EPOCH, "warmup": False,
            "firstNormalEpoch": 0, "firstNormalSlot": 0,
        }  # fmt: skip

    def _supply(self, params: Params) -> Json:
        """What the faucet holds does not circulate. Fees, which nobody earns here, are still counted."""
        params.options(0)
        faucet = self._cluster.faucet.pubkey()
        account = self._cluster.account(bytes(faucet))
        held = account.lamports if account else 0
        value = {
            "total": FAUCET_LAMPORTS, "circulating": FAUCET_LAMPORTS - held, "nonCirculating": held,
            "nonCirculatingAccounts": [str(faucet)],
        }  # fmt: skip
        return {"context": {"slot": self._cluster.slot, "apiVersion": CORE_VERSION}, "value": value}

    def _block(self, params: Params) -> Json:
        slot, wish = params.natural(0), params.at(1, object, {})
        options: dict[str, Any] = wish if isinstance(wish, dict) else {"encoding": wish}
        encoding, details = transaction_encoding(options.get("encoding")), options.get("transactionDetails") or "full"
        if details not in _DETAILS:
            raise RpcFault(INVALID_PARAMS, f"Invalid params: transactionDetails is not one of {', '.join(_DETAILS)}")
        if slot >= self._cluster.slot:
            raise RpcFault(BLOCK_NOT_AVAILABLE, f"Block not available for slot {slot}")
        blockhash = self._cluster.blockhash_of(slot)
        if blockhash is None:
            first = self._cluster.first_slot
            text = f"Block {slot} cleaned up, does not exist on node. First available block: {first}"
            raise RpcFault(BLOCK_CLEANED_UP, text)
        block: Json = {
            "blockhash": base58(blockhash),
            "previousBlockhash": base58(self._cluster.blockhash_of(slot - 1) or bytes(32)),
            "parentSlot": max(0, slot - 1),
            "blockHeight": slot,
            "blockTime": self._cluster.block_time(slot),
            "rewards": [],
        }
        records = self._cluster.transactions_in(slot) if details != "none" else []
        if details == "signatures":
            block["signatures"] = [record.signature for record in records]
        elif details == "full":
            decimals, newest = decimals_of(self._cluster), options.get("maxSupportedTransactionVersion")
            block["transactions"] = [
                transaction_json(record, encoding, decimals, newest_version=newest) for record in records
            ]
        return block

    def _blocks(self, params: Params) -> list[int]:
        end = params.at(1, object, {})
        last = self._cluster.slot - 1 if isinstance(end, dict) else params.natural(1)
        return self._slots(params.natural(0), last)

    def _blocks_with_limit(self, params: Params) -> list[int]:
        first = params.natural(0)
        return self._slots(first, first + min(params.natural(1), BLOCKS_PAGE_MAX) - 1)

    def _slots(self, first: int, last: int) -> list[int]:
        """Slots that have a block, at most BLOCKS_PAGE_MAX: none is ever skipped."""
        first, last = max(first, self._cluster.first_slot), min(last, self._cluster.slot - 1)
        return list(range(first, min(last + 1, first + BLOCKS_PAGE_MAX)))
