// An agent with an embedded server, fed by files of JSON lines.
import { spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '../..');

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/// Events of a recorded story.
export function recorded(name) {
  return readFileSync(join(ROOT, 'tests/stories', `${name}.jsonl`), 'utf8').trim().split('\n').map(JSON.parse);
}

/// The failure of a unit with its cascade within half a second, of another node, now, with `change`
/// applied to each event.
export function cascade(node, change = (event) => event) {
  const events = recorded('nginx-cascade').filter((event) => event.entity.node === 'node-b');
  const first = Date.parse(events[0].time);
  const start = Date.now() - 1000;
  return events.map((event) => change({
    ...event,
    id: `${node}-${event.id}`,
    time: new Date(start + (Date.parse(event.time) - first) / 20).toISOString(),
    entity: {
      ...event.entity,
      node,
      ...(event.entity['systemd.invocation_id'] && { 'systemd.invocation_id': node.padEnd(32, 'a').replace(/[^0-9a-f]/g, 'b') }),
      ...(event.entity['k8s.pod.uid'] && { 'k8s.pod.uid': `uid-${node}` }),
    },
  }));
}

/// Starts `tapio run --standalone` on free ports. `stop` ends it. With a `token`, requests to its
/// server need it, and may read and annotate.
export async function startAgent({ server = '', token = '' } = {}) {
  const tapio = process.env.TAPIO ?? join(ROOT, 'target/debug/tapio');
  const dir = mkdtempSync(join(tmpdir(), 'tapio-page-'));
  const input = join(dir, 'input');
  mkdirSync(input);
  writeFileSync(join(input, 'events.jsonl'), '');
  const [grpc, http, admin] = [await freePort(), await freePort(), await freePort()];
  const config = join(dir, 'tapio.yaml');
  const secret = (name, text) => {
    writeFileSync(join(dir, name), `${text}\n`, { mode: 0o600 });
    return `, token_file: ${join(dir, name)}`;
  };
  const tokens = token && secret('tokens', `write page-test token-of-the-agent\noperate page ${token}`);
  const own = token && secret('own', 'token-of-the-agent');
  writeFileSync(config, [
    `state_dir: ${dir}/state`, 'node: page-test',
    `collectors: { only: [jsonl], jsonl: { paths: ["${input}/*.jsonl"], follow: true } }`,
    `bridge: { endpoint: "127.0.0.1:${grpc}"${own} }`,
    `server: { grpc_listen: "127.0.0.1:${grpc}", http_listen: "127.0.0.1:${http}", data_dir: ${dir}/store${tokens}${server} }`,
    `admin: { listen: "127.0.0.1:${admin}" }`, 'log: { level: warn }', '',
  ].join('\n'));
  const child = spawn(tapio, ['run', '--standalone', '--config', config], { stdio: ['ignore', 'ignore', 'inherit'] });
  const url = `http://127.0.0.1:${http}`;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const api = async (path) => (await fetch(url + path, { headers })).json();
  const send = async (method, path, body = {}) => {
    const options = { method, headers: { ...headers, 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
    const response = await fetch(url + path, options);
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.status === 204 ? null : response.json();
  };
  const until = async (text, holds) => {
    for (let turn = 0; turn < 600; turn += 1) {
      try {
        if (await holds()) return;
      } catch {
        // Not started yet.
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`after a minute: not ${text}`);
  };
  await until('ready', async () => (await fetch(`${url}/readyz`)).ok);
  return {
    url,
    api,
    send,
    until,
    write: (events) => appendFileSync(join(input, 'events.jsonl'), `${events.map(JSON.stringify).join('\n')}\n`),
    stop: async () => {
      child.kill('SIGTERM');
      await new Promise((resolve) => child.once('exit', resolve));
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
