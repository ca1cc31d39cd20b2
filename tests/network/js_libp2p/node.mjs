// A js-libp2p node that speaks what docs/protocol.md asks for: TCP, Noise, yamux, GossipSub with signed messages.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'

export function createNode (degree = 6) {
  return createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionManager: { maxConnections: 500, inboundConnectionThreshold: 500 }, // all dial from one host
    services: {
      identify: identify(),
      ping: ping(),
      pubsub: gossipsub({ D: degree, Dlo: Math.min(4, degree), Dhi: 2 * degree, allowPublishToZeroTopicPeers: true })
    }
  })
}

export async function until (condition, what, seconds = 15) {
  for (const end = Date.now() + 1000 * seconds; !condition();) {
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
