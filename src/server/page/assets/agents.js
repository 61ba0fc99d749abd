// The agents that send to this server, with what each reports of itself.
import { html } from './core.js';
import { get } from './api.js';
import { Link } from './route.js';
import { bytes, count, counted, duration, plain } from './text.js';
import { Failure, Text, Time, useLoaded, useNow, useTitle } from './widgets.js';

const RELOAD_MS = 10_000;

const losses = (account) => Object.entries(account?.dropped ?? {});
const lost = (account) => losses(account).reduce((sum, [, number]) => sum + number, 0);

function Health({ of }) {
  const symbols = { ok: '●', running: '●', degraded: '◆', unavailable: '◆', backoff: '▲', hung: '▲', away: '▲' };
  const kind = { '●': 'good', '◆': 'warn', '▲': 'error' }[symbols[of]] ?? 'info';
  return html`<span class=${`severity ${kind}`}><span aria-hidden="true">${symbols[of] ?? '○'}</span> ${plain(of)}</span>`;
}

const stateOf = (agent) => (agent.connected ? agent.status?.state ?? 'ok' : 'away');

function Residual({ account }) {
  if (!account) return '–';
  return account.residual === 0 ? 'holds' : html`<strong class="severity error">off by ${count(account.residual)}</strong>`;
}

function AgentRow({ agent }) {
  const { status } = agent;
  const problems = status?.problems ?? [];
  return html`<tr><th scope="row"><${Link} href=${`/agents/${encodeURIComponent(agent.node)}`}>${plain(agent.node)}<//></th>
    <td><${Health} of=${stateOf(agent)} />${problems.length > 0 && html`<div class="hint"><${Text} of=${problems[0]} most=${120} /></div>`}</td>
    <td>${agent.last_batch ? html`<${Time} of=${agent.last_batch} />` : 'none yet'}</td>
    <td class="number">${count(agent.events)}</td><td class="number">${count(agent.stories)}</td>
    <td class="number">${status?.cons1 ? count(lost(status.cons1)) : '–'}</td><td><${Residual} account=${status?.cons1} /></td>
    <td class="number">${status ? bytes(status.spool_bytes) : '–'}</td><td>${plain(status?.version ?? '–')}</td></tr>`;
}

function useAgents(path, inputs) {
  const loaded = useLoaded((signal) => get(path, path.endsWith('agents') ? { limit: 1000 } : {}, signal), [path, ...inputs]);
  return loaded;
}

/// The list.
export function Agents() {
  useTitle('Agents');
  const turn = Math.floor(useNow(RELOAD_MS) / RELOAD_MS);
  const { value, error, reload } = useAgents('/api/v1/agents', [turn]);
  return html`<h1>Agents</h1>
    ${error && html`<${Failure} error=${error} onRetry=${reload} />`}
    ${value?.items.length === 0 && html`<div class="empty"><h2>No agent has sent anything yet</h2>
      <p>Set this server as <code>bridge.endpoint</code> of an agent. On its node, <code>tapio status</code> shows why it can’t connect.</p></div>`}
    ${value?.items.length > 0 && html`<div class="scroll"><table><caption class="unseen">Agents</caption>
      <thead><tr><th scope="col">Node</th><th scope="col">State</th><th scope="col">Last batch</th><th scope="col" class="number">Events</th><th scope="col" class="number">Stories</th>
        <th scope="col" class="number">Lost</th><th scope="col">Accounting</th><th scope="col" class="number">Spool</th><th scope="col">Version</th></tr></thead>
      <tbody>${value.items.map((agent) => html`<${AgentRow} key=${agent.node} agent=${agent} />`)}</tbody></table></div>`}
    <p class="hint">Accounting holds where received = forwarded + lost + held, for every event.</p>`;
}

function Collectors({ collectors }) {
  return html`<div class="scroll"><table><caption class="unseen">Collectors</caption>
    <thead><tr><th scope="col">Collector</th><th scope="col">Health</th><th scope="col" class="number">Received</th><th scope="col" class="number">Stored</th>
      <th scope="col" class="number">Held</th><th scope="col">Lost</th><th scope="col">Accounting</th><th scope="col" class="number">Restarts</th></tr></thead>
    <tbody>${collectors.map(({ name, health, last_error: error, restarts, cons1 }) => html`<tr key=${name}><th scope="row">${plain(name)}</th>
      <td><${Health} of=${health} />${error && html`<div class="hint"><${Text} of=${error} most=${200} /></div>`}</td>
      <td class="number">${count(cons1?.received)}</td><td class="number">${count(cons1?.forwarded)}</td><td class="number">${count(cons1?.held)}</td>
      <td>${losses(cons1).map(([reason, number]) => `${reason}: ${count(number)}`).join(', ') || 'none'}</td><td><${Residual} account=${cons1} /></td><td class="number">${restarts}</td></tr>`)}</tbody></table></div>`;
}

function Facts({ agent }) {
  const { status, delay } = agent;
  const rows = [
    ['State', html`<${Health} of=${stateOf(agent)} />`],
    ['Started', agent.started && html`<${Time} of=${agent.started} />`],
    ['First seen', html`<${Time} of=${agent.first_seen} />, ${counted(agent.processes, 'process', 'processes')}`],
    ['Last batch', agent.last_batch && html`<${Time} of=${agent.last_batch} />`],
    ['Received here', `${counted(agent.events, 'event')}, ${counted(agent.stories, 'story', 'stories')} in ${counted(agent.batches, 'batch', 'batches')}`],
    ['Refused here', agent.batches_refused > 0 && counted(agent.batches_refused, 'batch', 'batches')],
    ['Delay', delay?.count > 0 && `half within ${duration(delay.p50_ns)}, 99 % within ${duration(delay.p99_ns)}`],
    ['Version', plain(status?.version ?? '')],
    ['Spool', status && `${bytes(status.spool_bytes)}${status.spool_oldest_seconds > 0 ? `, the oldest batch is ${duration(status.spool_oldest_seconds * 1e9)} old` : ''}`],
    ['Memory', status && `${bytes(status.memory_bytes)}${status.memory_limit_bytes ? ` of ${bytes(status.memory_limit_bytes)}` : ''}`],
    ['Rules', status && `${count(status.rules.count)}${status.rules.disabled ? `, ${status.rules.disabled} disabled` : ''}`],
    ['Reported', agent.last_status && html`<${Time} of=${agent.last_status} />`],
  ];
  return html`<dl class="details">${rows.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

/// One agent.
export function Agent({ node }) {
  useTitle(node);
  const turn = Math.floor(useNow(RELOAD_MS) / RELOAD_MS);
  const { value: agent, error, reload } = useAgents(`/api/v1/agents/${encodeURIComponent(node)}`, [turn]);
  return html`<p class="crumbs"><${Link} href="/agents">Agents<//></p><h1 dir="auto">${plain(node)}</h1>
    ${error && html`<${Failure} error=${error} onRetry=${reload} />`}
    ${agent && html`${(agent.status?.problems ?? []).map((problem) => html`<p class="failure" role="alert"><${Text} of=${problem} /></p>`)}
      <${Facts} agent=${agent} />
      <h2>Collectors</h2>${agent.status ? html`<${Collectors} collectors=${agent.status.collectors} />` : html`<p>This agent is too old to report its state.</p>`}
      <p><${Link} href=${`/stories?node=${encodeURIComponent(node)}`}>Stories of this node<//></p>`}`;
}
