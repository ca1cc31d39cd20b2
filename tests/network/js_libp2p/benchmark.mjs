// The workload of benchmarks/gossip.py among js-libp2p nodes in one process; prints the same figures.
import { parseArgs } from 'node:util'
import { createNode, until } from './node.mjs'

const options = { peers: '20', degree: '6', messages: '60', rate: '2', bytes: '256' }
const { values } = parseArgs({ options: Object.fromEntries(Object.keys(options).map((name) => [name, { type: 'string' }])) })
const { peers, degree, messages, rate, bytes } = Object.fromEntries(
  Object.entries({ ...options, ...values }).map(([name, value]) => [name, Number(value)])
)
const TOPIC = 'cyx/1/benchmark'
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const cpuMs = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1000 }
const below = (count) => Math.floor(Math.random() * count)

const nodes = []
for (let number = 0; number < peers; number++) nodes.push(await createNode(degree))
const sent = new Map()
const got = new Set()
const latencies = []
nodes.forEach((node, index) => {
  node.services.pubsub.addEventListener('message', ({ detail }) => {
    const number = new DataView(detail.data.buffer, detail.data.byteOffset).getUint32(0)
    latencies.push(performance.now() - sent.get(number))
    got.add(`${index}/${number}`)
  })
  node.services.pubsub.subscribe(TOPIC)
})
const links = new Set()
for (let late = 1; late < peers; late++) links.add(`${below(late)} ${late}`)
while (links.size < Math.min(peers * degree / 2, peers * (peers - 1) / 2)) {
  const [near, far] = [below(peers), below(peers)].sort((a, b) => a - b)
  if (near !== far) links.add(`${near} ${far}`)
}
for (const link of links) {
  const [near, far] = link.split(' ').map(Number)
  await nodes[far].dial(nodes[near].getMultiaddrs()[0])
}
await sleep(5000)
const idleBegan = cpuMs()
await sleep(4000)
const idle = (cpuMs() - idleBegan) / 4000

const wallBegan = performance.now()
const cpuBegan = cpuMs()
for (let number = 0; number < messages; number++) {
  const author = below(peers)
  const data = crypto.getRandomValues(new Uint8Array(bytes))
  new DataView(data.buffer).setUint32(0, number)
  sent.set(number, performance.now())
  await nodes[author].services.pubsub.publish(TOPIC, data)
  await sleep(Math.max(0, wallBegan + (number + 1) * 1000 / rate - performance.now()))
}
const expected = messages * (peers - 1)
await until(() => got.size >= expected, 'the last delivery', 20).catch(() => {})
const [wall, cpu] = [performance.now() - wallBegan, cpuMs() - cpuBegan]
latencies.sort((a, b) => a - b)
const round = (value, digits) => Number(value.toFixed(digits))
console.log(JSON.stringify({
  cpu_ms_per_delivery: round((cpu - idle * wall) / got.size, 3),
  cpu_ms_per_delivery_with_idle: round(cpu / got.size, 3),
  delivery_ratio: round(got.size / expected, 4),
  duplicates_delivered: latencies.length - got.size,
  p50_ms: round(latencies[latencies.length >> 1], 1),
  p99_ms: round(latencies[Math.floor(latencies.length * 0.99)], 1),
  idle_cpu_percent: round(idle * 100, 2)
}))
process.exit(0)
