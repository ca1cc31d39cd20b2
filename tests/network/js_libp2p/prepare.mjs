// Installs the pinned packages into a cache outside of this tree, once, and prints the folder to run the programs in.
import { createHash } from 'node:crypto'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

const here = import.meta.dirname
const lock = readFileSync(join(here, 'package-lock.json'))
const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
const folder = join(cache, 'cyxnode', 'js-libp2p-' + createHash('sha256').update(lock).digest('hex').slice(0, 16))
mkdirSync(folder, { recursive: true })
for (const name of readdirSync(here).filter((name) => /\.(mjs|json)$/.test(name))) cpSync(join(here, name), join(folder, name))
const done = join(folder, '.installed')
if (!existsSync(done)) {
  const npm = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: folder, stdio: ['ignore', 2, 2] })
  if (npm.status !== 0) process.exit(npm.status ?? 1)
  writeFileSync(done, '')
}
console.log(folder)
