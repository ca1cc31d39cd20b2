// What a program on @solana/kit does with a chain. Usage: node kit.mjs URL WEBSOCKET_URL MINT. Prints one JSON object.
import {
  AccountRole, address, airdropFactory, appendTransactionMessageInstruction, assertIsTransactionWithBlockhashLifetime,
  createSolanaRpc, createSolanaRpcSubscriptions, createTransactionMessage, fetchEncodedAccount, fetchJsonParsedAccount,
  generateKeyPairSigner, getSignatureFromTransaction, lamports, pipe, sendAndConfirmTransactionFactory,
  setTransactionMessageFeePayerSigner, setTransactionMessageLifetimeUsingBlockhash,
  signTransactionMessageWithSigners,
} from "@solana/kit";
import { getTransferSolInstruction } from "@solana-program/system";

const [url, websocket, mintText] = process.argv.slice(2);
const TOKEN = address("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
const mint = address(mintText);
const rpc = createSolanaRpc(url), rpcSubscriptions = createSolanaRpcSubscriptions(websocket);
const sendAndConfirm = sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions });
const alice = await generateKeyPairSigner(), bob = await generateKeyPairSigner();
const stop = new AbortController();
const found = {};

async function send(instruction) {
  const { value: latest } = await rpc.getLatestBlockhash().send();
  const message = pipe(
    createTransactionMessage({ version: 0 }),
    (m) => setTransactionMessageFeePayerSigner(alice, m),
    (m) => setTransactionMessageLifetimeUsingBlockhash(latest, m),
    (m) => appendTransactionMessageInstruction(instruction, m),
  );
  const signed = await signTransactionMessageWithSigners(message);
  assertIsTransactionWithBlockhashLifetime(signed);
  await sendAndConfirm(signed, { commitment: "confirmed" });
  return getSignatureFromTransaction(signed);
}

// subscriptions: `first` subscribes now and resolves with the first notification
async function first(request) {
  const notifications = await request.subscribe({ abortSignal: stop.signal });
  return { told: (async () => { for await (const told of notifications) return told; })() };
}
const account = await first(rpcSubscriptions.accountNotifications(bob.address, { encoding: "base64" }));
const logs = await first(rpcSubscriptions.logsNotifications({ mentions: [bob.address] }));
const program = await first(rpcSubscriptions.programNotifications(TOKEN, {
  encoding: "jsonParsed", filters: [{ dataSize: 165n }],
}));
const slot = await first(rpcSubscriptions.slotNotifications());
const root = await first(rpcSubscriptions.rootNotifications());
found.slot = await slot.told;
found.root = await root.told;

// airdrop and transfer, both confirmed over the websocket
await airdropFactory({ rpc, rpcSubscriptions })({
  commitment: "confirmed", lamports: lamports(2_000_000_000n), recipientAddress: alice.address,
});
found.transfer = await send(getTransferSolInstruction({ source: alice, destination: bob.address, amount: 1_000_000_000n }));
found.balance = (await rpc.getBalance(bob.address).send()).value;
found.accountSeen = (await account.told).value.lamports;
found.logsSeen = (await logs.told).value;

// a signature that landed before it was subscribed to
const late = await first(rpcSubscriptions.signatureNotifications(found.transfer, { commitment: "confirmed" }));
found.lateSignature = (await late.told).value;

// tokens
for (const [owner, amount] of [[alice.address, 5_000_000], [bob.address, 1]]) {
  await fetch(url, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "cyx_requestTokens", params: [owner, amount] }),
  });
}
const tokenAccount = async (owner) =>
  (await rpc.getTokenAccountsByOwner(owner, { mint }, { encoding: "jsonParsed" }).send()).value[0].pubkey;
const [source, destination] = [await tokenAccount(alice.address), await tokenAccount(bob.address)];
const data = new Uint8Array(10);
data[0] = 12; // TransferChecked
new DataView(data.buffer).setBigUint64(1, 1_250_000n, true);
data[9] = 6;
const paid = await send({
  programAddress: TOKEN, data,
  accounts: [
    { address: source, role: AccountRole.WRITABLE }, { address: mint, role: AccountRole.READONLY },
    { address: destination, role: AccountRole.WRITABLE },
    { address: alice.address, role: AccountRole.READONLY_SIGNER, signer: alice },
  ],
});
found.tokenBalance = (await rpc.getTokenAccountBalance(destination).send()).value;
found.programSeen = (await program.told).value.account.data.parsed.info.mint;
found.encodedAccount = (await fetchEncodedAccount(rpc, destination)).data.length;
found.parsedAccount = (await fetchJsonParsedAccount(rpc, destination)).data.tokenAmount.uiAmountString;
found.programAccounts = (await rpc.getProgramAccounts(TOKEN, {
  encoding: "base64", withContext: true, dataSlice: { offset: 64, length: 8 },
  filters: [{ dataSize: 165n }, { memcmp: { offset: 0n, bytes: mint, encoding: "base58" } }],
}).send()).value.map((one) => Buffer.from(one.account.data[0], "base64").readBigUInt64LE()).sort();

// history and the chain itself
found.history = (await rpc.getSignaturesForAddress(alice.address, { limit: 1 }).send())[0].signature === paid;
const landed = await rpc.getTransaction(paid, { encoding: "json", maxSupportedTransactionVersion: 0 }).send();
found.version = landed.version;
found.refusedVersion = await rpc.getTransaction(paid, { encoding: "json" }).send().then(() => "given", (e) => e.message);
await (await first(rpcSubscriptions.slotNotifications())).told; // a block is there once its slot has ended
const block = await rpc.getBlock(landed.slot, { maxSupportedTransactionVersion: 0, transactionDetails: "signatures" }).send();
found.inBlock = block.signatures.includes(paid);
found.blocks = (await rpc.getBlocks(landed.slot, landed.slot).send()).length;
found.supply = (await rpc.getSupply().send()).value.total;
stop.abort();
process.stdout.write(JSON.stringify(found, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
process.exit(0);
