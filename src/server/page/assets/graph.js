// The entities of a story and how they are related: a layered picture, and the same as a table.
import { html, useMemo, useState } from './core.js';
import { Link, entityUrl, go } from './route.js';
import { counted, plain } from './text.js';
import { Severity, severityClass } from './widgets.js';

const BOX = { width: 172, height: 44, right: 56, below: 14 };

/// Places of the nodes: a column for each layer; in it, near the nodes that they are related to.
function layout({ nodes, edges }) {
  const layers = new Map();
  for (const node of nodes) layers.set(node.layer, [...(layers.get(node.layer) ?? []), node]);
  const places = new Map();
  const columns = [...layers.keys()].sort((a, b) => a - b);
  columns.forEach((layer, column) => {
    const before = (node) => {
      const rows = edges.filter((edge) => edge.to === node.id && places.has(edge.from)).map((edge) => places.get(edge.from).y);
      return rows.length > 0 ? rows.reduce((sum, y) => sum + y, 0) / rows.length : Infinity;
    };
    const sorted = layers.get(layer).map((node) => [before(node), node]).sort((a, b) => a[0] - b[0]);
    sorted.forEach(([, node], row) => {
      places.set(node.id, { x: column * (BOX.width + BOX.right), y: row * (BOX.height + BOX.below) });
    });
  });
  const rows = Math.max(1, ...columns.map((layer) => layers.get(layer).length));
  return { places, width: columns.length * (BOX.width + BOX.right) - BOX.right, height: rows * (BOX.height + BOX.below) };
}

function Edge({ edge, places }) {
  const [from, to] = [places.get(edge.from), places.get(edge.to)];
  if (!from || !to) return null;
  const [x1, y1, x2, y2] = [from.x + BOX.width, from.y + BOX.height / 2, to.x, to.y + BOX.height / 2];
  // One that passes other layers goes below their boxes, not behind them.
  if (x2 - x1 > BOX.right) {
    const below = Math.max(y1, y2) + BOX.height / 2 + BOX.below / 2;
    return html`<path class=${`edge ${severityClass(edge.severity)}`}
      d=${`M${x1} ${y1}C${x1 + 30} ${y1} ${x1 + 10} ${below} ${x1 + 40} ${below}H${x2 - 40}C${x2 - 10} ${below} ${x2 - 30} ${y2} ${x2} ${y2}`}>
      <title>${plain(edge.relation)}, ${counted(edge.events, 'event')}</title></path>`;
  }
  const bend = Math.max(24, Math.abs(x2 - x1) / 2);
  return html`<path class=${`edge ${severityClass(edge.severity)}`} d=${`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`}>
    <title>${plain(edge.relation)}, ${counted(edge.events, 'event')}</title></path>`;
}

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function Node({ node, place }) {
  const url = entityUrl(node.id);
  const label = `${node.kind} ${plain(node.name)}, ${counted(node.events, 'event')}${node.cause_rank ? `, candidate ${node.cause_rank} for the cause` : ''}`;
  const open = (event) => {
    if (event.type === 'keydown' && event.key !== 'Enter') return;
    event.preventDefault();
    go(url);
  };
  return html`<g class=${`node ${severityClass(node.severity)} ${node.cause_rank === 1 ? 'cause' : ''}`} transform=${`translate(${place.x} ${place.y})`}
      tabindex="0" role="link" onClick=${open} onKeyDown=${open}>
    <title>${label}</title><rect width=${BOX.width} height=${BOX.height} rx="6" />
    <text x="10" y="17" class="kind">${node.kind}${node.cause_rank ? ` · cause ${node.cause_rank}` : ''}</text>
    <text x="10" y="34">${shorten(plain(node.name), 24)}</text></g>`;
}

function GraphTable({ nodes, edges }) {
  const name = new Map(nodes.map((node) => [node.id, `${node.kind} ${node.name}`]));
  const related = (id) => edges
    .filter((edge) => edge.from === id || edge.to === id)
    .map((edge) => (edge.from === id ? `${edge.relation} ${name.get(edge.to)}` : `${edge.relation.replace('contains', 'in')} ${name.get(edge.from)}`));
  return html`<div class="scroll"><table><caption class="unseen">Entities of the story</caption>
    <thead><tr><th scope="col">Entity</th><th scope="col">Severity</th><th scope="col" class="number">Events</th><th scope="col">Candidate</th><th scope="col">Relations</th></tr></thead>
    <tbody>${nodes.map((node) => html`<tr key=${node.id}><th scope="row"><${Link} href=${entityUrl(node.id)}>${plain(name.get(node.id))}<//></th>
      <td><${Severity} of=${node.severity} /></td><td class="number">${node.events}</td><td>${node.cause_rank ?? ''}</td>
      <td>${plain(related(node.id).join('; '))}</td></tr>`)}</tbody></table></div>`;
}

/// `graph`: the API's.
export function Graph({ graph }) {
  const [isTable, setTable] = useState(false);
  const { places, width, height } = useMemo(() => layout(graph), [graph]);
  if (graph.nodes.length === 0) return html`<p>The stored events of this story name no entity.</p>`;
  return html`<div class="tools"><button type="button" class="small" aria-pressed=${isTable} onClick=${() => setTable(!isTable)}>
      ${isTable ? 'Show as a picture' : 'Show as a table'}</button></div>
    ${isTable ? html`<${GraphTable} ...${graph} />` : html`<div class="scroll"><svg class="graph" width=${width + 4} height=${height + 4}
        viewBox=${`-2 -2 ${width + 4} ${height + 4}`} role="group" aria-label=${`${counted(graph.nodes.length, 'entity', 'entities')} and their relations`}>
      ${graph.edges.map((edge) => html`<${Edge} key=${`${edge.from}>${edge.to}`} edge=${edge} places=${places} />`)}
      ${graph.nodes.map((node) => html`<${Node} key=${node.id} node=${node} place=${places.get(node.id)} />`)}
    </svg></div>`}`;
}
