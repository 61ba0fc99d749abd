// The evidence: every candidate for the root cause with every term of its score.
import { html } from './core.js';
import { Link, causeEntityUrl } from './route.js';
import { plain, signed } from './text.js';
import { Text } from './widgets.js';

// The words of the ranking (docs/evidence.md), for people who meet them first.
const TERMS = {
  rule: 'Named by the rule', severity: 'Severity', onset: 'Early in the story', deviation: 'Unusual count',
  lift: 'Unusual rate', 'edge gap': 'Time to its effect', precedence: 'Precedes the effect elsewhere',
};

function Weight({ weight, most }) {
  const width = Math.min(60, (Math.abs(weight) / most) * 60);
  return html`<svg class=${weight < 0 ? 'weight against' : 'weight'} width="124" height="12" aria-hidden="true">
    <path class="zero" d="M62 0v12" /><rect x=${weight < 0 ? 62 - width : 62} y="2" width=${width} height="8" /></svg>`;
}

function Candidate({ candidate, most, memberOf, onShow }) {
  const url = causeEntityUrl(candidate.entity);
  return html`<tbody>
    <tr class="candidate"><th scope="rowgroup" colspan="2">
        <span class="rank">${candidate.rank}.</span> <${Text} of=${candidate.cause} most=${200} />
        ${candidate.entity && html`<span class="entity">${url
          ? html`<${Link} href=${url}>${plain(`${candidate.entity.kind} ${candidate.entity.name}`)}<//>`
          : plain(`${candidate.entity.kind} ${candidate.entity.name}`)}</span>`}
      </th>
      <td class="number">${signed(candidate.score)}</td>
      <td>${candidate.evidence.map((id) => memberOf(id) && html`<button type="button" class="small"
        onClick=${() => onShow(memberOf(id))}>Show event</button>`)}</td></tr>
    ${candidate.terms.map((term) => html`<tr>
      <th scope="row">${TERMS[term.name] ?? plain(term.name)}</th>
      <td><${Weight} weight=${term.weight} most=${most} /></td>
      <td class="number">${signed(term.weight)}</td>
      <td class="because"><${Text} of=${term.because} most=${200} /></td></tr>`)}
  </tbody>`;
}

/// `explanation`: the API's; `memberOf(id)`: the member with this id.
export function Evidence({ explanation, memberOf, onShow }) {
  const { candidates } = explanation;
  if (candidates.length === 0) return html`<p>No event is a candidate for the cause.</p>`;
  const most = Math.max(1, ...candidates.flatMap((one) => one.terms.map((term) => Math.abs(term.weight))));
  const odds = candidates[0].odds;
  return html`<p>${candidates.length > 1 && odds
      ? `The first candidate is ${odds > 100 ? 'over 100' : odds.toFixed(odds < 10 ? 1 : 0)} times as likely as the second one, by this evidence.`
      : 'There is no other candidate.'} A score is the sum of its terms; each is a logarithm of odds.</p>
    <div class="scroll"><table class="evidence"><caption class="unseen">Candidates for the root cause</caption>
      <thead><tr><th scope="col">Term</th><th scope="col">Against, for</th><th scope="col" class="number">Weight</th><th scope="col">Reason</th></tr></thead>
      ${candidates.map((candidate) => html`<${Candidate} key=${candidate.rank} candidate=${candidate} most=${most} memberOf=${memberOf} onShow=${onShow} />`)}
    </table></div>`;
}
