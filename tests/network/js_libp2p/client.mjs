// Dials a node: identify, ping, gossip both ways on one topic, and the records in it decoded as docs/protocol.md says.
// usage: client.mjs ADDRESS TOPIC GENESIS_HEX RECORDS; prints one JSON object when RECORDS records were heard
import { createPublicKey, verify } from 'node:crypto'
import { decode } from '@msgpack/msgpack'
import { multiaddr } from '@multiformats/multiaddr'
import { createNode, until } from './node.mjs'

const [address, topic, genesisHex, records] = process.argv.slice(2)
const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex')

function open (data) {
  // section 3: an envelope is signed over "cyx/1/", genesis, the length of kind, kind and body
  const { version, kind, sender, body, signature } = decode(data)
  const signed = Buffer.concat([
    Buffer.from('cyx/1/'), Buffer.from(genesisHex, 'hex'), Buffer.from([kind.length]), Buffer.from(kind), body
  ])
  const key = createPublicKey({ key: Buffer.concat([ED25519_SPKI, sender]), format: 'der', type: 'spki' })
  return {
    version, kind, sender: Buffer.from(sender).toString('hex'), signed: verify(null, signed, key, signature), message: decode(body)
  }
}

function unpack (data) {
  // section 4: a gossip message is an array of one or more envelopes
  const records = decode(data)
  if (!Array.isArray(records) || !records.length) throw new Error('not a bundle')
  return records
}

function plain (value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (Array.isArray(value)) return value.map(plain)
  if (value instanceof Object) return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)]))
  return value
}

const node = await createNode()
const heard = []
node.services.pubsub.addEventListener('message', ({ detail }) => {
  if (detail.topic !== topic) return
  const records = unpack(detail.data)
  for (const record of records) heard.push({ from: detail.from.toString(), together: records.length, ...open(record) })
})
node.services.pubsub.subscribe(topic)
const identifying = new Promise((resolve) => node.addEventListener('peer:identify', ({ detail }) => resolve(detail)))
const connection = await node.dial(multiaddr(address))
const identified = await identifying
const pingMs = await node.services.ping.ping(connection.remotePeer)
await until(() => node.services.pubsub.getSubscribers(topic).length > 0, 'its subscription')
// its own gossip stream may open later than the node's: what it publishes before reaches nobody
const publish = () => node.services.pubsub.publish(topic, new TextEncoder().encode('from js-libp2p'))
const again = setInterval(publish, 1000)
await publish()
await until(() => heard.length >= Number(records), 'its records')
clearInterval(again)
console.log(JSON.stringify({
  peer: connection.remotePeer.toString(),
  self: node.peerId.toString(),
  protocols: identified.protocols,
  ping_ms: pingMs,
  heard: heard.map(plain)
}))
process.exit(0)
