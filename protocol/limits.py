"""Every bound of the protocol, in one place, with its unit.

A queue, loop, retry, size or lifetime anywhere in cyxnode is bounded by a name of this file.
"""

# sizes (bytes)
ID_BYTES = 32
SIGNATURE_BYTES = 64
GOSSIP_MESSAGE_MAX_BYTES = 64 * 1024
GOSSIP_RECORDS_MAX = 16
"""Envelopes of one author in one gossip message of at most GOSSIP_MESSAGE_MAX_BYTES."""
GOSSIP_RECORD_BYTES = 16 * 1024
"""What one record may weigh where gossip is rationed; a heavier one counts for several."""
GOSSIP_RECORDS_KNOWN_MAX = 4_096
"""Records of one topic that are recognised when they come again in another message."""
GOSSIP_WINDOW_S = 0.02
"""How long a record that is in no hurry waits for others that may share its message."""
REQUEST_MAX_BYTES = 1024 * 1024
RESPONSE_MAX_BYTES = 4 * 1024 * 1024
FRAME_MAX_BYTES = 256 * 1024
BLOB_CHUNK_BYTES = 128 * 1024
BLOB_MAX_BYTES = 4 * 1024**3
BLOB_FRAME_TIMEOUT_S = 20.0
"""A peer that takes no chunk of a blob for so long loses the stream."""
STATE_MAX_BYTES = 512 * 1024**2
GRAPH_MAX_BYTES = 256 * 1024
SPEC_MAX_BYTES = 512 * 1024
TRANSACTION_MAX_BYTES = 1232

# codec
MAX_DEPTH = 12
MAX_ITEMS = 1024
TEXT_MAX_CHARS = 512
ADDRESSES_MAX = 8
DATASETS_MAX = 32

# clock and lifetimes (milliseconds unless named otherwise)
CLOCK_SKEW_MS = 30_000
HEARTBEAT_INTERVAL_MS = 10_000
CAPABILITY_INTERVAL_MS = 30_000
SUSPECT_AFTER_MS = 20_000
DEAD_AFTER_MS = 30_000
HARDWARE_SAMPLE_INTERVAL_MS = 5_000
STATUS_DIGEST_INTERVAL_MS = 5_000
PROGRESS_INTERVAL_MS = 100

# auction (milliseconds)
COMMIT_WINDOW_MS = 250
REVEAL_WINDOW_MS = 250
WINDOW_MAX_MS = 10_000
ROUND_MS = 500
ROUNDS_MAX = 3
SEAT_DEADLINE_SLOTS = 400
START_LEASE_MS = 3_000
HANDOVERS_MAX = 3
"""How often one job may go to the next in its award's ranking."""
HANDOVER_ROUND_MS = 2_000
HANDOVER_ROUNDS_MAX = 12
"""Rounds in which a committee looks for the votes of one hand-over: together longer than its members notice a death
apart."""
CLASS_WAIT_MS = 60_000

# verification (milliseconds unless named otherwise)
SEGMENTS_MAX = 128
SAMPLES_MAX = 16
STEPS_MAX = 1_000_000
VERDICT_COMMIT_WAIT_MS = 60_000
VERDICT_REVEAL_WAIT_MS = 10_000
SETTLE_ROUND_MS = 3_000
SETTLE_ROUNDS_MAX = 64
FRAUD_ROUNDS_MAX = 10
"""Settlement rounds in which FRAUD looks for its quorum; then the job FAILED."""
STATEMENTS_HEARD_MAX = 4_096
"""Signatures of members that a node remembers, to notice who contradicts itself."""
EVIDENCE_JUDGED_MAX = 8
"""Certificates and outcomes of one job that are looked at after the first."""
DISPUTES_MAX = 8
"""Accused segments that a member replays for one job."""
FRAUD_DEVIATION_PPM = 1_000
"""Distance of the claimed state from the replayed one, in parts per million of the segment's update, above which it is
no hardware's rounding."""
DEVIATION_MAX_PPM = 1_000_000_000

# counts
QUORUMS = {3: 2, 5: 3, 7: 5}
"""k -> m: seats of a committee and the signatures that move money (DESIGN 8)."""
FRAUD_QUORUMS = {3: 3, 5: 4, 7: 5}
"""k -> signatures that take a stake (DESIGN 8)."""
COMMITTEE_MAX = 7
NONCES_DRAWN = 16
"""Nonces among which a requester chooses the one whose addresses cost the program least."""
SETTLEMENTS_MAX = 8
"""Settlements of one job: the last one has to end it."""
BIDS_MAX = 48
"""Bids in one certificate."""
TALLIED_MAX = 40
"""Bids in a member's tally, the cheapest: members that miss some of them still fit one certificate."""
COMMITS_MAX = 512
"""Sealed bids of one job that a node remembers."""
JOBS_OPEN_MAX = 256
PEERS_KNOWN_MAX = 4096
PEERS_CONNECTED_MAX = 64
PEERS_REMEMBERED_MAX = 512
"""Peers, the connected ones included, whose keys, protocols and addresses libp2p keeps."""
PEER_EXCHANGE_MAX = 32
INBOUND_STREAMS_MAX = 128
GOSSIP_QUEUE_MAX = 1024

# money
MICRO = 1_000_000
LAMPORTS_PER_SOL = 1_000_000_000
FEE_BPS_MAX = 1_000
PRICE_PER_SEAT_MIN = 50
"""Least price in micro-CYX for each seat of the committee: at the fee terms of `ledger.genesis`, where verifiers share
2 % of what is paid, the least of which each is owed one whole micro-CYX."""
AMOUNT_MAX = (1 << 63) // 10_000
"""Largest amount in micro-CYX: no product with basis points overflows 64 bits."""

# client retries (seconds): FEATURES row 28
RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
REQUEST_TIMEOUT_S = 10.0
DIAL_TIMEOUT_S = 5.0
DIAL_STAGGER_S = 0.3
"""Between the beginnings of two attempts to reach one node at different addresses."""
DIAL_FAR_TIMEOUT_S = 1.5
"""For an address of a private network that we are not in: where it is routed at all, it is near."""
STREAM_IDLE_TIMEOUT_S = 30.0
CONFIRM_TIMEOUT_S = 30.0

# local chain (ledger.cluster, ledger.rpc_server)
SLOT_MS = 400
BLOCKHASHES_MAX = 150
"""A transaction is accepted for as many slots after its blockhash, as on Solana: one minute."""
SLOT_HASHES_MAX = 512
CHAIN_HISTORY_MAX = 5_000
RPC_BODY_MAX_BYTES = 1024 * 1024
RPC_HEADERS_MAX_BYTES = 16 * 1024
RPC_CONNECTIONS_MAX = 256
RPC_BATCH_MAX = 64
RPC_ACCOUNTS_MAX = 100
RPC_IDLE_TIMEOUT_S = 120.0
SIGNATURES_PAGE_MAX = 1000
HISTORY_PAGE_MAX = 100
"""Transactions that `wallet history` fetches, one request each."""
JOB_TRANSACTIONS_MAX = 100
"""Transactions of one job among which its first is looked for: opening, seating, settlements, closing."""
SIGNATURE_STATUSES_MAX = 256
BASE58_DATA_MAX_BYTES = 128
"""Of account data in base58; more is asked for in base64, as on Solana."""
ACCOUNT_FILTERS_MAX = 4
LARGEST_ACCOUNTS_MAX = 20
BLOCKS_PAGE_MAX = 512
PORT_PAIR_TRIES_MAX = 32
"""How often a free port is drawn until the next one, for websockets, is free as well."""
SOCKETS_MAX = 64
SUBSCRIPTIONS_PER_SOCKET_MAX = 256
SUBSCRIBE_REQUEST_MAX_BYTES = 64 * 1024
OUTBOX_MESSAGES_MAX = 1024
OUTBOX_MAX_BYTES = 8 * 1024 * 1024
"""Notifications of one websocket that wait for its reader; beyond, the reader is disconnected."""
SOCKET_SEND_TIMEOUT_S = 10.0
SOCKET_CLOSE_TIMEOUT_S = 2.0
AIRDROP_MAX_LAMPORTS = 1_000 * 10**9
FAUCET_MAX_MICRO_CYX = 1_000_000 * MICRO

# chain client (ledger.sender, ledger.http_rpc)
CHAIN_REQUEST_TIMEOUT_S = 5.0
SUBMIT_ATTEMPTS_MAX = 5
"""How often a transaction is signed anew after its blockhash expired."""
CONFIRM_POLL_S = 0.1
"""First pause between two looks at a status; each pause is a quarter longer than the last."""
CONFIRM_POLL_MAX_S = 0.5
CHAIN_RETRY_MAX_S = 2.0
"""Longest pause of a sender whose cluster does not answer; pauses double."""
RESEND_POLLS = 8
"""Polls of a transaction's status before the same bytes are sent again: after about two seconds."""
PRIORITY_FEE_MAX_LAMPORTS = 100_000
"""Of one transaction, unless the policy says otherwise: 0.0001 SOL."""
PRIORITY_FEE_ACCOUNTS_MAX = 128
COMPUTE_UNITS_MAX = 1_400_000
COMPUTE_UNITS_MARGIN_PERCENT = 120
DEPLOY_CHUNK_BYTES = 900
DEPLOY_PARALLEL_MAX = 8
"""Chunks of a program that are under way at once."""

# transport (the p2p package)
STREAMS_PER_PEER_MAX = 32
"""Inbound streams that one peer may hold open; INBOUND_STREAMS_MAX bounds all peers together."""
WINDOW_WAIT_S = 60.0
"""How long a sender waits for a paused reader before the stream counts as broken."""
STREAM_WINDOW_MAX_BYTES = 1024 * 1024
"""Unread bytes that one stream may hold in memory."""
CONNECTION_WRITE_TIMEOUT_S = 30.0
REQUEST_HANDLER_TIMEOUT_S = 120.0
REQUEST_WATCH_S = 0.5
RESET_TIMEOUT_S = 1.0
PROTOCOL_MAX_CHARS = 128
TOPIC_MAX_CHARS = 128
KEEPALIVE_INTERVAL_S = 10.0
PULSE_INTERVAL_S = 4.0
"""A peer that has said nothing for so long is asked whether it lives."""
CONNECTION_SILENCE_MAX_S = 16.0
"""Silence that ends a connection; with PULSE_INTERVAL_S together not longer than SUSPECT_AFTER_MS."""
SHUTDOWN_TIMEOUT_S = 2.0
GOSSIP_DEGREE = 6
GOSSIP_DEGREE_LOW = 4
GOSSIP_DEGREE_HIGH = 12
GOSSIP_HEARTBEAT_S = 1
GOSSIP_OUTBOUND_QUEUE_MAX = 1024
GOSSIP_OUTBOUND_MAX_BYTES = 4 * 1024 * 1024
"""Of all messages that wait for one peer; what does not fit is dropped and counted."""
GOSSIP_STALL_S = 30.0
"""A peer that takes no gossip for so long, while some waits for it, is disconnected."""
GOSSIP_RETRY_S = 10.0
"""Before a gossip stream is opened again that its peer has reset."""
GOSSIP_ENVELOPE_MAX_BYTES = 512
"""What a signed message weighs beside its data: author, number, topic, key and signature."""
GOSSIP_SEEN_IDS_MAX = 32_768
GOSSIP_SEEN_S = 120.0
"""How long a message is recognised when it comes again, unless GOSSIP_SEEN_IDS_MAX newer ones came."""
GOSSIP_CACHE_MAX_BYTES = 16 * 1024 * 1024
"""Recent messages kept for peers that ask for what they missed."""
GOSSIP_STREAMS_PER_PEER_MAX = 4
GOSSIP_JOINS_PER_PEER = (5.0, 256)
"""Topics that one peer may join, a second and at once: each time it is sent the topic's recent messages."""
GOSSIP_CONTROL_QUEUE_MAX = 64
"""Control messages of one peer that wait to be handled."""
GOSSIP_CONTROL_ENTRIES_MAX = 64
"""Grafts, prunes and announcements, each, in one control message; the rest of them is passed over."""
GOSSIP_CONTROL_IDS_MAX = 2_048
GOSSIP_ANSWER_MAX_BYTES = 1024 * 1024
"""Of the messages that one control message may ask for."""
GOSSIP_BACKOFF_MAX_S = 600
GOSSIP_BACKOFFS_MAX = 256
"""Peers of a topic, gone ones as well, that are remembered for not to be grafted yet."""
CONNECTION_BACKLOG_BYTES = 256 * 1024
"""Of one connection: writers wait while more than this waits for the socket."""
CONNECTION_READ_BYTES = 64 * 1024
GOSSIP_REJECTS_MAX = 32
"""Messages that our validators reject before their forwarder is banned."""
BAN_FIRST_MS = 3_600_000
"""A peer's first ban; each further one is twice as long."""
BAN_MAX_MS = 7 * 24 * 3_600_000
BAN_MEMORY_MS = 7 * 24 * 3_600_000
"""After its end a ban still counts for the length of the next."""
BAN_RECORD_MAX_BYTES = 256
GOSSIP_PER_AUTHOR = {"presence": (1.0, 32), "market": (20.0, 256), "jobs": (1.0, 16)}
"""Records a second, and at once, that one author may gossip, by kind of topic. Presence: a heartbeat every 10 s in up
to seven cells. Market: two records a job and node, for ten jobs a second in one class."""
GOSSIP_PER_AUTHOR_ELSEWHERE = (100.0, 1024)
"""As GOSSIP_PER_AUTHOR, of all topics of other kinds together."""
GOSSIP_PER_FORWARDER = (500.0, 4096)
"""Records a second, and at once, of all topics and authors that one peer may hand us."""
GOSSIP_GROSS = 4
"""How many times its rate an author may hand us of its own before each further message counts as rejected."""
PEERS_BANNED_MAX = 1024
DENY_LIST_MAX = 65_536
DENY_LIST_POLL_S = 1.0
"""How often a node looks whether its operator's deny list has changed."""
ADDRESS_MAX_CHARS = 256

# executor: model graphs
GRAPH_NODES_MAX = 2_000
GRAPH_RANK_MAX = 5
NODE_INPUTS_MAX = 16
PARAMETERS_MAX = 40_000_000
"""With AdamW a parameter costs 12 bytes of state: 40 M of them fit STATE_MAX_BYTES."""
ACTIVATION_BYTES_MAX = 2 * 1024**3
"""Of one batch, forward, at four bytes an element."""
BATCH_BYTES_MAX = 256 * 1024**2

# executor: tensors and data
TENSOR_HEADER_MAX_BYTES = 1024**2
TENSORS_MAX = 16_384
DATASET_MAX_BYTES = 256 * 1024**2
EXAMPLES_MAX = 10_000_000
EVALUATION_BATCH = 256
METRIC_MICRO_MAX = 10**15

# executor: the worker process
WORKER_FRAME_MAX_BYTES = STATE_MAX_BYTES + 1024**2
WORKER_READ_BYTES = 1024**2
WORKER_STDERR_TAIL_BYTES = 600
WORKER_MEMORY_MAX_BYTES = 8 * 1024**3
WORKER_FILES_MAX = 256
WORKER_FILE_BYTES_MAX = 1024**2
WORKER_THREADS_MAX = 64
WORKER_NICENESS = 5
WORKER_START_MAX_S = 120.0
WORKER_SILENCE_MAX_S = 300.0
"""A worker says at least once a second that it is alive, unless one step or one batch takes longer."""
WORKER_TIME_MAX_S = 24 * 3600.0
WORKER_EXIT_MAX_S = 5.0
WORKER_ALIVE_INTERVAL_MS = 1_000
WORKERS_MAX = 4
WARM_IDLE_MAX_S = 120.0

# inference
PROMPTS_MAX = 64
PROMPT_MAX_BYTES = 64 * 1024
"""Of one prompt, and of the system text, in UTF-8."""
PREDICT_MAX = 4_096
"""Tokens that one prompt may ask for."""
TOP_K_MAX = 256
TEMPERATURE_MICRO_MAX = 2 * MICRO
CONTEXT_MAX = 65_536
MODEL_NAME_MAX_CHARS = 96
TOKENS_DELAY_MAX_MS = 20
"""How long a token may wait, at an even pace, to be sent together with the next ones."""
TOKEN_GAP_MAX_MICRO = 1_000
"""Within an execution class a token's score lies at most this far (10^-6 logits) below the best one."""
MEAN_GAP_MAX_MICRO = 10
TRACE_GAP_MAX_MICRO = 2_000
"""Distance of a worker's logits from those of the prefill."""
INEXACT_TOKENS_PPM = 10_000
"""Share of tokens that may be another than the prefill's best one, within the gap; one is always forgiven."""
MODELS_OFFERED_MAX = 8
"""Models that one node announces."""
OFFERS_LOOK_S = 1.0
"""How often a node looks whether its offers or addresses have changed, to announce them at once."""
FRAMING_TOKENS_MAX = 128
"""Tokens that a model's chat template adds to a prompt."""
PROMPT_TOKEN_UNITS = 1
GENERATED_TOKEN_UNITS = 4
"""Units of the escrow for a token that is read and for one that is written."""
ANSWERS_MAX_BYTES = 8 * 1024**2
"""Of all answers of one job."""
TOKENS_TEXT_MAX_CHARS = 4_096
"""Of one piece of a streamed answer; a longer one is cut into several."""
TOKEN_PIECES_MAX = 2 * PROMPTS_MAX * PREDICT_MAX
"""Pieces of one job's answers that its worker keeps until the outcome."""
TOKENS_PER_S_ASSUMED = 5
"""Of a model whose pace its node has not measured yet."""
GPU_SAMPLE_S = 1.0
MODEL_FILE_MAX_BYTES = 64 * 1024**3
MODEL_SERVER_CONNECT_S = 5.0
MODEL_SERVER_SILENCE_S = 120.0
"""A model server may take this long to its first token (it loads the model), and between two."""
MODEL_SERVER_REPLY_MAX_BYTES = 4 * 1024**2
MODELS_SHELVED_MAX = 64
"""Models in one folder of a node's shelf."""
MODEL_RECORD_MAX_BYTES = 16 * 1024
MODELS_MEMORY_PPM = 250_000
"""Share of the machine's memory that loaded models may have unless the operator says otherwise."""
MODEL_IDLE_MAX_S = 900.0
"""A model that nobody used for so long is unloaded; a model server is asked to do the same."""
MODEL_ROOM_MAX_S = 120.0
"""How long a session waits for others to end whose models take the memory."""
MODEL_LOOK_S = 5.0
"""Between two looks at the shelf, its files and its model servers."""
MODEL_LOOK_PATIENCE_S = 5.0
"""After so much silence a model server counts as down."""
MODEL_RETRY_S = 600.0
"""A model that could not be loaded is tried again after this, or once its files have changed."""
MODEL_SPEED_SESSIONS = 8
"""Sessions over which the figure of tokens per second moves."""
MODEL_CONTEXT_DEFAULT = 4_096
"""Context of a GGUF or Ollama model that could have a longer one."""
MODEL_TRY_TOKENS = 16
"""What a model has to say before it is put on the shelf."""
GGUF_HEADER_MAX_BYTES = 256 * 1024**2
GGUF_KEYS_MAX = 4_096

# scheduler: services
BID_MAX_BYTES = 512
"""Of an encoded bid: a certificate with BIDS_MAX of them must fit one gossip message."""
EARLY_MESSAGES_MAX = 4 * BIDS_MAX
"""Market messages of one job that wait while its escrow is looked up."""
JOBS_REFUSED_MAX = 1024
ESCROW_POLL_S = 0.2
SEAT_POLL_S = 0.15
CHAIN_RETRY_S = 2.0
FETCH_TRIES_MAX = 3
REPLAY_TRIES_MAX = 3
FETCH_RETRY_S = 0.5
PREPARE_DELAY_S = 2.0
"""After the start of a training: a verifier's own warm-up must not take CPU from it on a shared machine. An answer may
be there before it would have begun."""
STRICT_MASK_ROUNDS = 2
"""Settlement rounds in which a member insists on the fee of everyone that it counts."""
PROGRESS_DRAIN_S = 1.0
OUTCOME_PATIENCE_S = 10.0

# scheduler: what a requester's journal holds of its jobs (scheduler.chronicle), and what is told of them (cli.job)
CHRONICLES_MAX = 4_096
"""Jobs of one requester whose chronicle is kept; a new one empties the oldest."""
CHRONICLE_NOTES_MAX = 256
"""Of one job: troubles and declines that are written down; all else happens a few times at most."""
CHRONICLE_RECORD_MAX_BYTES = 128 * 1024
"""Of one record; the largest hold an award certificate of at most GOSSIP_MESSAGE_MAX_BYTES."""
PROGRESS_KEPT_MS = 2_000
"""Between two progress figures that are written down."""
CLAIMS_KEPT_MAX = 1_024
"""Settled claims that a node keeps for requesters that were gone."""
CLAIM_KEPT_MS = 24 * 3_600_000
RECOVERY_PATIENCE_S = 60.0
"""For which `job result` looks for somebody who gives it what a job brought."""
RECOVERY_REQUEST_S = 3.0
RECOVERY_RETRY_S = 1.0
JOBS_LISTED_MAX = 1_000
CANDIDATES_SHOWN_MAX = 8
"""Ids that a refusal of an ambiguous one names."""
JOURNAL_COPY_TRIES_MAX = 20
"""How often a journal is copied whose owner changes its files meanwhile."""
JOURNAL_COPY_RETRY_S = 0.05

# scheduler: presence (cells, peer exchange)
CELL_NODES_MAX = 64
"""Registered nodes of a class that share one cell; a larger class is cut into a power of two of shards."""
CAPABILITIES_PER_INTERVAL = 16
"""Capability records per CAPABILITY_INTERVAL_MS and cell: in larger cells each node speaks more seldom."""
NEWCOMER_PAUSES_S = (2.0, 4.0, 8.0)
"""After its start a node says its record again after each of these: with connections, more nodes hear it."""
CELL_REVIEW_S = 600.0
"""How often a node looks whether its class has outgrown its cells, give or take 10 %."""
CELL_LINGER_S = 720.0
"""How long it then still speaks in the old cells: longer than anyone takes to notice."""
PEERS_WANTED = 8
"""Connections to nodes of one's own class (of any, for who offers nothing)."""
PEERS_OF_CELL = 4
"""Of those, in a class of several cells, to nodes of one's own cell: presence spreads there, the market among all."""
PEERS_ASKED_MAX = 32
"""Nodes that one request may ask for by name."""
RECORDS_MAX = 128
"""Capability records and heartbeats in one PeersAnswer."""
SURVEYS_MAX = 4
"""Times that a requester asks anew before it seats a committee, while registered nodes with low tickets turn up."""
CLASSES_ASKED_MAX = 4
"""Classes that a requester looks at in one round of its search."""
LOCATE_ASKED_MAX = 3
"""Nodes of its cell that are asked where a node is, besides bootstrap nodes."""
LOCATE_AGAIN_S = 10.0
"""Before the same node is asked for again."""
EXCHANGE_SHORT_S = 5.0
"""Between peer exchanges while connections are short."""
EXCHANGE_INTERVAL_S = 60.0
OBSERVER_FORGETS_MS = 90_000
"""What a bootstrap node hands on: it hears of a node once in EXCHANGE_INTERVAL_S."""
CLOCK_TRUST_MS = HEARTBEAT_INTERVAL_MS
"""How far behind ours we take an author's clock to be at most, until a record that comes with less delay tells."""
CLOCK_DRIFT_MS = 1_000
"""By how much an author's clock may fall behind from one record to the next: a clock that was put back heals."""
PROBE_TIMEOUT_S = 2.0

# scheduler: the split-network alarm (scheduler.split)
SPLIT_MEMORY_MS = 150_000
"""How long a view of ours can explain another's digest: older than any digest that is handed on."""
SPLIT_VIEWS_MAX = 1_024
SPLIT_EVIDENCE_MS = 90_000
"""How long a digest counts: bootstrap nodes are asked once in EXCHANGE_INTERVAL_S."""
SPLIT_PERSISTS_MS = 60_000
"""For how long digests must differ without a break: twice what a death may be noticed apart."""
SPLIT_DIFFERING_MIN = 2
SPLIT_SHARE = 4
"""One in so many of those who said something must differ."""
SPLIT_LOSS_WINDOW_MS = 25_000
"""Deaths of one cut come within a heartbeat and its jitter; they are looked at once in HEARTBEAT_INTERVAL_MS."""
SPLIT_LOSS_MIN = 3
SPLIT_LOSS_SHARE = 3
"""One in so many of a cell that falls silent at once is a split, or looks like one."""
SPLIT_LOSS_FORGOTTEN_MS = 600_000
SPLIT_CLEARS_MS = 20_000
SPLIT_HEAL_S = 15.0
"""Between peer exchanges while there is something to heal."""
SPLIT_DIALS_MAX = 4
"""Nodes of other parts, or of earlier lives, that one such exchange dials."""

# scheduler: known peers (scheduler.known_peers)
PEERS_KEPT_MAX = 256
"""Peers that have answered a node, kept on its disk for its next start."""
PEER_RECORD_MAX_BYTES = 4 * 1024
PEERS_WRITE_MS = 3_600_000
"""A kept peer that answers again is written again at most this often, unless its addresses changed."""
PEER_STALE_MS = 24 * 3_600_000
"""Silence after which a kept peer gives its place to a newcomer."""
PEER_EXPIRES_MS = 30 * 24 * 3_600_000
"""Silence after which a kept peer is not dialled any more."""

# bootstrap: seed lists (bootstrap.dns_seeds, bootstrap.seed_list)
SEEDS_MAX = 64
"""Addresses that one name in DNS, or one signed list, may lead to."""
SEED_LOOKUPS_MAX = 16
SEED_DEPTH_MAX = 4
"""Names that lead from one to the next."""
SEED_RECORDS_MAX = 64
DNS_TIMEOUT_S = 5.0
SEED_FILE_MAX_BYTES = 64 * 1024
SEED_LIST_DAYS_MAX = 366
UNIX_S_MAX = 2**40
"""The latest time that a seed list may name, in Unix seconds."""

# transport: who may come in (p2p.admission, p2p.inbound)
INBOUND_CONNECTIONS_MAX = 2 * PEERS_CONNECTED_MAX
"""Inbound connections that stand or are being made."""
CONNECTIONS_PER_HOST_MAX = 32
"""Of those, from one IP address (an IPv6 /64); loopback is not bounded by itself."""
CONNECTIONS_PER_HOST = (4.0, CONNECTIONS_PER_HOST_MAX)
"""New connections a second from one host, and how many at once: a handshake costs some 30 ms of CPU."""
STREAMS_PER_PEER = {
    "/cyx/1/peers": (2.0, 40),
    "/cyx/1/blob": (100.0, 400),
    "/cyx/1/dial-back": (0.1, 4),
    "/cyx/1/upgrade": (0.1, 8),
}
"""Streams a second that one peer may open by protocol, and how many at once."""
STREAMS_PER_PEER_ELSEWHERE = (20.0, 100)
DRAIN_TIMEOUT_S = 3.0
"""How long an ending bootstrap node finishes what it was asked before it hangs up."""
STOP_TIMEOUT_S = 5.0
"""From the signal to the end of the process."""

# reachability (p2p.reachability, p2p.dial_back, p2p.reach)
DIAL_BACK_PORTS_MAX = 4
"""Ports that one request may ask to be called on, always at the address that its connection comes from."""
DIAL_BACK_MAX_BYTES = 256
DIAL_BACK_TIMEOUT_S = 3.0
"""For one port: connecting, and the proof of who answers."""
DIAL_BACKS_MAX = 8
"""Calls under way at once, for all who asked."""
DIAL_BACKS = (2.0, 16)
"""Calls a second for all who ask, and how many at once."""
DIAL_BACKS_PER_HOST = (0.1, 8)
REACH_ANSWERS_MAX = 8
"""Peers whose last answers count."""
REACH_ANSWER_AGE_S = 1_200.0
REACH_ANSWERS_WANTED = 2
"""Peers that must have answered before anything is decided."""
REACH_DOUBTS_MAX = 2
"""Rounds that have to contradict a decision before it is turned round."""
REACH_ASKED_MAX = 3
"""Peers asked in one round."""
REACH_CHECK_S = 300.0
REACH_SOON_S = 15.0
"""Between rounds while nothing is decided, or a decision is doubted."""
REACH_REFUSED_S = 60.0
"""Before a peer is asked again that would not call."""
REACH_SETTLES_S = 3.0
"""Without a change, before an operator is told of the last one."""
REACH_PATIENCE_S = 6.0
"""How long a requester that the world can hardly dial waits for a relay before it tells where it is."""
NAMED_PEERS_MAX = 64
"""Peers dialled by an address that a person gave: they are asked first, and may relay."""

# relaying (p2p.relay, p2p.relay_quota, p2p.circuit_wire, p2p.circuits, p2p.upgrade)
RELAY_MESSAGE_MAX_BYTES = 4 * 1024
RELAY_MESSAGE_TIMEOUT_S = 5.0
"""For one message of a peer that wants something of a relay, or of a relay."""
RELAY_RESERVATIONS_MAX = 64
RELAY_RESERVATIONS_PER_HOST = 8
"""Of one IP address (an IPv6 /64); loopback counts as any."""
RELAY_RESERVATION_S = 1_800.0
RELAY_CIRCUITS_MAX = 64
"""Circuits of all peers that stand or are being made."""
RELAY_CIRCUITS_PER_TARGET = 16
RELAY_CIRCUITS_PER_SOURCE = 8
RELAY_CIRCUIT_S = 3_600.0
RELAY_CIRCUIT_MAX_BYTES = 64 * 1024 * 1024
"""In both directions together."""
RELAY_BYTES_PER_S = 4 * 1024 * 1024
"""Of all circuits together, on average over a second."""
RELAY_CHUNK_BYTES = 16 * 1024
RELAY_STALL_S = 60.0
"""A circuit whose reader takes nothing for so long is cut."""
RELAY_LINGER_S = 5.0
"""How long one side of a circuit may go on after the other has ended."""
RELAY_STREAMS = (1.0, 16)
"""Requests a second that one peer may put to a relay, and how many at once."""
RELAY_PENDING_MAX = 64
"""Requests of all peers that are not answered yet."""
RELAYS_WANTED = 2
"""Relays that an unreachable node holds a reservation at."""
RELAYS_TRIED_MAX = 8
RELAY_RENEW_SHARE = 0.5
"""Part of a reservation's time after which it is renewed."""
RELAY_RETRY_S = 10.0
CIRCUITS_INBOUND_MAX = 32
"""Connections that relays may bring to a node at once."""
UPGRADE_TIMEOUT_S = 20.0
"""For the whole attempt to make a relayed connection direct."""
UPGRADE_DIAL_S = 3.0
UPGRADE_CROSS_S = 0.3
"""Between two calls that may cross the peer's."""
UPGRADE_TRIES_MAX = 3
UPGRADE_RETRY_FIRST_S = 5.0
"""After the first attempt: the caller may not have known yet where it is."""
UPGRADE_RETRY_S = 30.0
UPGRADES_MAX = 8
UPGRADE_ADDRESSES_MAX = 4
UPGRADE_MAX_BYTES = 2 * 1024
UPGRADE_LINGER_S = 60.0
"""How long a relayed connection whose streams are not done stays beside the direct one."""
# discovery: the DHT (p2p.dht)
DHT_BUCKET_SIZE = 20
"""Kademlia's k: peers in a bucket, holders of a record, and those that a look-up ends at."""
DHT_PARALLEL = 3
"""Questions of one look-up that are under way at once."""
DHT_QUESTIONS_MAX = 32
"""Of one look-up; each may cost a connection."""
DHT_QUESTION_TIMEOUT_S = 5.0
DHT_LOOKUP_TIMEOUT_S = 30.0
DHT_LINGER_S = 1.0
"""How long a connection that a look-up opened outlives it, so that both sides have learnt who the other is."""
DHT_NEWCOMERS_MAX = 64
"""Askers of whom it is not known yet whether they serve."""
DHT_TABLE_MAX = 512
"""Peers in all buckets together."""
DHT_FRESH_S = 3_600.0
"""How long a peer that answered keeps its place in a full bucket without a connection."""
DHT_SUBNET_BUCKET_MAX = 2
DHT_SUBNET_TABLE_MAX = 8
"""Peers of one public /24 (IPv6 /48) in one bucket, and in all."""
DHT_REQUEST_MAX_BYTES = 16 * 1024
DHT_ANSWER_MAX_BYTES = 128 * 1024
DHT_REQUEST_TIMEOUT_S = 5.0
"""For one request to arrive and its answer to be taken."""
DHT_PROVIDED_KEYS_MAX = 1_024
DHT_PROVIDERS_PER_KEY_MAX = 128
DHT_PROVIDERS_TOLD_MAX = 20
"""Of one key in one answer, drawn anew each time, so that nobody holds the places by being first."""
DHT_PROVIDERS_PER_SUBNET_MAX = 8
"""Of one key, from one IP address's /24 (IPv6 /64); private addresses are not bounded by it."""
DHT_KEYS_PER_PROVIDER_MAX = 8
DHT_PROVIDER_EXPIRES_S = 3_600.0
DHT_RECORDS_MAX = 512
DHT_RECORD_MAX_BYTES = 8 * 1024
DHT_RECORD_EXPIRES_MS = 2 * 3_600_000
"""Age at which a node's own record in the DHT ends."""

# discovery: rendezvous (p2p.rendezvous)
RENDEZVOUS_NAMESPACES_MAX = 256
RENDEZVOUS_PER_NAMESPACE_MAX = 512
RENDEZVOUS_REGISTRATIONS_MAX = 2_048
RENDEZVOUS_PER_PEER_MAX = 4
RENDEZVOUS_PER_SUBNET_MAX = 32
"""In one namespace, as with providers."""
RENDEZVOUS_REQUEST_MAX_BYTES = 4 * 1024
RENDEZVOUS_TTL_S = 1_800
"""For which a node registers; more is refused."""
RENDEZVOUS_TTL_MIN_S = 120
RENDEZVOUS_TOLD_MAX = 32
"""Registrations in one answer."""

# discovery: requests of both (p2p.discovery_gate), the LAN (p2p.lan) and when to look (bootstrap.discovery_plan)
DISCOVERY_REQUESTS_PER_PEER = (4.0, 64)
"""Requests a second that one peer may make, and how many at once."""
DISCOVERY_STREAMS_PER_PEER_MAX = 4
DISCOVERY_STREAMS_MAX = 64
DISCOVERY_REJECTS_MAX = 32
"""Malformed requests before their sender is banned."""
LAN_NAMES = (1.0, 64)
"""Announcements a second that are looked at, and how many at once."""
LAN_RECORDS_MAX = 8_192
"""Records of all services on the LAN that are held; above, listening pauses for LAN_PAUSE_S."""
LAN_PAUSE_S = 60.0
LAN_ASK_TIMEOUT_S = 1.0
LAN_QUEUE_MAX = 64
DISCOVERY_TICK_S = 5.0
WALK_INTERVAL_S = 1_800.0
"""Between look-ups of our own place in the DHT."""
PROVIDE_INTERVAL_S = 1_200.0
REGISTER_INTERVAL_S = 300.0
"""A bootstrap node that was restarted knows its classes again after so long."""
SEARCH_FIRST_S = 15.0
"""Between searches for peers of the class while they are short; twice as long after each, up to SEARCH_LAST_S."""
SEARCH_LAST_S = 900.0
FOUND_PEERS_MAX = 32
"""Peers that one search hands on to be dialled."""

# metrics (cli.metrics, cli.metrics_server)
METRICS_CONNECTIONS_MAX = 16
METRICS_HEADERS_MAX_BYTES = 8 * 1024
METRICS_TIMEOUT_S = 5.0
CHAIN_FIGURES_AGE_S = 15.0
"""Age at which figures of the chain are read anew for a scrape."""

# doctor (cli.checkup, cli.checks_machine, cli.checks_network, cli.checks_discovery)
CHECK_TIMEOUT_S = 20.0
"""Of one check; they run side by side."""
DISK_FREE_MIN_BYTES = 1024**3
DISK_FREE_WANTED_BYTES = 10 * 1024**3
RPC_SLOW_S = 1.0
LOOKUP_SLOW_S = 10.0
