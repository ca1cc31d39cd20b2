// Generates a client from the IDL; it reads accounts and builds an instruction: node client.mjs <input.json>
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { renderVisitor } from '@codama/renderers-js';
import { address, createNoopSigner } from '@solana/kit';
import { createFromJson } from 'codama';
import { build } from 'esbuild';

const input = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const idl = createFromJson(readFileSync(input.idl, 'utf8'));
await idl.accept(renderVisitor(input.folder, { generatedFolder: 'src', syncPackageJson: false, formatCode: false }));
const outfile = `${input.folder}/client.mjs`;
await build({
  entryPoints: [`${input.folder}/src/index.ts`], outfile, bundle: true, format: 'esm', platform: 'node', logLevel: 'error',
  nodePaths: [`${import.meta.dirname}/node_modules`],
});
const client = await import(pathToFileURL(outfile).href);

const bytes = (hex) => new Uint8Array(Buffer.from(hex, 'hex'));
const { config, node, job } = input.accounts;
const register = client.getRegisterInstruction(
  {
    ...Object.fromEntries(Object.entries(input.register.accounts).map(([name, key]) => [name, address(key)])),
    signer: createNoopSigner(address(input.register.accounts.signer)),
    stake: BigInt(input.register.stake),
    executionClass: bytes(input.register.executionClass),
    payout: address(input.register.payout),
  },
  { programAddress: address(input.program) },
);
const [nodePda] = await client.findNodePda({ key: node.node }, { programAddress: address(input.program) });
const found = {
  config: client.getConfigDecoder().decode(bytes(config.data)),
  node: client.getNodeDecoder().decode(bytes(node.data)),
  job: client.getJobDecoder().decode(bytes(job.data)),
  nodePda,
  register: {
    program: register.programAddress,
    data: register.data,
    accounts: register.accounts.map((a) => [a.address, a.role]),
  },
  message: client.getCyxEscrowErrorMessage?.(input.code) ?? null,
  codes: Object.keys(client).filter((name) => name.startsWith('CYX_ESCROW_ERROR__')).map((name) => client[name]),
};
const plain = (_, value) =>
  typeof value === 'bigint' ? value.toString() : value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value;
console.log(JSON.stringify(found, plain));
