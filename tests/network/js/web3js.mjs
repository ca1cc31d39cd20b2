// What a program on @solana/web3.js 1.x does with a chain. Usage: node web3js.mjs URL MINT. Prints one JSON object.
import {
  Connection, Keypair, LAMPORTS_PER_SOL, PublicKey, SystemProgram, Transaction, TransactionInstruction,
  TransactionMessage, VersionedTransaction, sendAndConfirmTransaction,
} from "@solana/web3.js";

const [url, mintText] = process.argv.slice(2);
const TOKEN = new PublicKey("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
const mint = new PublicKey(mintText);
const connection = new Connection(url, "confirmed"); // derives ws:// and port + 1 from the URL
const alice = Keypair.generate(), bob = Keypair.generate();
const found = {};

// subscriptions: each resolves with its first notification
const first = (subscribe) => new Promise((resolve) => subscribe((...told) => resolve(told)));
const seenAccount = first((tell) => connection.onAccountChange(bob.publicKey, tell));
const seenLogs = first((tell) => connection.onLogs(bob.publicKey, tell));
const seenProgram = first((tell) => connection.onProgramAccountChange(TOKEN, tell, {
  filters: [{ dataSize: 165 }, { memcmp: { offset: 32, bytes: bob.publicKey.toBase58() } }],
}));
found.slot = (await first((tell) => connection.onSlotChange(tell)))[0];
found.root = (await first((tell) => connection.onRootChange(tell)))[0];

// airdrop and transfer, both confirmed by signatureSubscribe
const latest = await connection.getLatestBlockhash();
const airdrop = await connection.requestAirdrop(alice.publicKey, 2 * LAMPORTS_PER_SOL);
found.airdrop = (await connection.confirmTransaction({ signature: airdrop, ...latest })).value;
const gift = SystemProgram.transfer({ fromPubkey: alice.publicKey, toPubkey: bob.publicKey, lamports: LAMPORTS_PER_SOL });
found.transfer = await sendAndConfirmTransaction(connection, new Transaction().add(gift), [alice]);
found.balance = await connection.getBalance(bob.publicKey);
found.accountSeen = (await seenAccount)[0].lamports;
found.logsSeen = (await seenLogs)[0];

// a versioned transaction that lands and fails: alice has too little left
const { blockhash, lastValidBlockHeight } = await connection.getLatestBlockhash();
const message = new TransactionMessage({ payerKey: alice.publicKey, recentBlockhash: blockhash, instructions: [gift] });
const versioned = new VersionedTransaction(message.compileToV0Message());
versioned.sign([alice]);
found.failing = await connection.sendTransaction(versioned, { skipPreflight: true })
  .then((signature) => connection.confirmTransaction({ signature, blockhash, lastValidBlockHeight }))
  .then((confirmed) => confirmed.value.err, (error) => error); // thrown when it had landed before the subscription
found.preflight = await connection.sendTransaction(versioned).then(() => "sent", (error) => error.message);

// tokens
await connection._rpcRequest("cyx_requestTokens", [alice.publicKey.toBase58(), 5_000_000]);
await connection._rpcRequest("cyx_requestTokens", [bob.publicKey.toBase58(), 1]);
const account = async (owner) => (await connection.getTokenAccountsByOwner(owner, { mint })).value[0].pubkey;
const [source, destination] = [await account(alice.publicKey), await account(bob.publicKey)];
const data = Buffer.alloc(10);
data.writeUInt8(12, 0); // TransferChecked
data.writeBigUInt64LE(1_250_000n, 1);
data.writeUInt8(6, 9);
const keys = [[source, false, true], [mint, false, false], [destination, false, true], [alice.publicKey, true, false]]
  .map(([pubkey, isSigner, isWritable]) => ({ pubkey, isSigner, isWritable }));
const tokens = new TransactionInstruction({ programId: TOKEN, keys, data });
const paid = await sendAndConfirmTransaction(connection, new Transaction().add(tokens), [alice]);
found.tokenBalance = (await connection.getTokenAccountBalance(destination)).value;
found.programSeen = (await seenProgram)[0].accountId.equals(destination);
found.parsedAccount = (await connection.getParsedAccountInfo(destination)).value.data.parsed.info.tokenAmount.uiAmountString;
found.parsedMint = (await connection.getParsedAccountInfo(mint)).value.data.parsed;
found.largest = (await connection.getTokenLargestAccounts(mint)).value.map((one) => Number(one.amount));
found.programAccounts = (await connection.getProgramAccounts(TOKEN, {
  filters: [{ dataSize: 165 }, { memcmp: { offset: 0, bytes: mint.toBase58() } }], dataSlice: { offset: 64, length: 8 },
})).map((one) => one.account.data.readBigUInt64LE().toString()).sort();

// history
const signatures = await connection.getSignaturesForAddress(alice.publicKey, { limit: 2 });
found.history = [signatures[0].signature === paid, signatures.length];
found.older = (await connection.getSignaturesForAddress(alice.publicKey, { before: paid, until: airdrop })).length;
const landed = await connection.getTransaction(paid, { maxSupportedTransactionVersion: 0 });
found.fee = landed.meta.fee;
found.tokenChange = landed.meta.postTokenBalances.map((one) => one.uiTokenAmount.amount).sort();
const parsed = await connection.getParsedTransaction(paid, { maxSupportedTransactionVersion: 0 });
found.parsedSigner = parsed.transaction.message.accountKeys.filter((key) => key.signer).length;
await first((tell) => connection.onSlotChange(tell)); // a block is there once its slot has ended
const block = await connection.getBlock(landed.slot, { maxSupportedTransactionVersion: 0 });
found.inBlock = block.transactions.some((one) => one.transaction.signatures[0] === paid);

// the chain itself
found.supply = (await connection.getSupply()).value.total;
found.leader = await connection.getSlotLeader();
found.nodes = (await connection.getClusterNodes()).length;
found.firstBlock = (await connection.getFirstAvailableBlock()) <= landed.slot;
found.unknown = await connection._rpcRequest("getStuff", []).then((answer) => answer.error);
process.stdout.write(JSON.stringify(found));
process.exit(0);
