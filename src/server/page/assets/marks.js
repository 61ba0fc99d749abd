// Marks that operators put on a story: acknowledgement, notes, a wrong or right cause, a silence.
import { html, useState } from './core.js';
import { send, storyPath } from './api.js';
import { Failure, Text, Time } from './widgets.js';

const NAME = 'tapio.name';

function Who() {
  return html`<label>Your name <input name="by" defaultValue=${localStorage.getItem(NAME) ?? ''} maxlength="200" autocomplete="name" /></label>`;
}

/// Sends a change, and remembers the name.
function useChange(onDone) {
  const [error, setError] = useState(null);
  const change = async (method, path, body) => {
    if (body?.by) localStorage.setItem(NAME, body.by);
    setError(null);
    try {
      await send(method, path, body);
      onDone();
    } catch (failed) {
      setError(failed);
    }
  };
  return [error, change];
}

/// Fields of a form that aren't empty.
function fields(event) {
  event.preventDefault();
  const all = [...new FormData(event.target)].map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(all.filter(([, value]) => value !== ''));
}

function Notes({ notes }) {
  return html`<ul class="notes">${notes.map((note) => html`<li key=${note.time}>
    <${Text} of=${note.text} most=${1000} /> <span class="by">${note.by ? `${note.by}, ` : ''}<${Time} of=${note.time} /></span></li>`)}</ul>`;
}

function Form({ label, open, children, onSubmit }) {
  return html`<details open=${open}><summary>${label}</summary><form class="mark-form" onSubmit=${onSubmit}>${children}</form></details>`;
}

/// The marks of a story and the forms to change them. `onChange` is called after a change.
export function Marks({ story, onChange }) {
  const [error, change] = useChange(onChange);
  const { acknowledged, wrong_cause: wrong, right_cause: right, notes = [] } = story.annotations ?? {};
  const path = (below) => storyPath(story.id, below);
  return html`<section aria-labelledby="marks"><h2 id="marks">Work on this story</h2>
    ${error && html`<${Failure} error=${error} />`}
    <div class="marks-state">
      ${acknowledged && html`<p>Acknowledged${acknowledged.by ? ` by ${acknowledged.by}` : ''}, <${Time} of=${acknowledged.time} />.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', path('/acknowledgement'))}>Take back</button></p>`}
      ${wrong && html`<p>Marked: the first cause is wrong${wrong.cause ? html`. The cause was: <${Text} of=${wrong.cause} />` : ''}.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', path('/wrong-cause'))}>Take back</button></p>`}
      ${right && html`<p>Marked: the first cause is right${right.by ? ` (${right.by})` : ''}.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', path('/right-cause'))}>Take back</button></p>`}
      ${story.silence && html`<p>Silenced until <${Time} of=${story.silence.until} />${story.silence.reason ? html`: <${Text} of=${story.silence.reason} />` : ''}.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', `/api/v1/silences/${story.silence.id}`)}>End the silence</button></p>`}
      ${notes.length > 0 && html`<${Notes} notes=${notes} />`}
    </div>
    <div class="forms">
      ${!acknowledged && html`<${Form} label="Acknowledge" onSubmit=${(event) => change('PUT', path('/acknowledgement'), fields(event))}>
        <${Who} /><button>Acknowledge</button><//>`}
      <${Form} label="Add a note" onSubmit=${(event) => { const body = fields(event); if (body.text) { change('POST', path('/notes'), body); event.target.reset(); } }}>
        <label>Note <textarea name="text" maxlength="4000" required rows="3"></textarea></label><${Who} /><button>Add</button><//>
      ${!wrong && !right && story.root_causes.length > 0 && html`<${Form} label="Right cause" onSubmit=${(event) => change('PUT', path('/right-cause'), fields(event))}>
        <${Who} /><button>Mark as right</button><//>`}
      ${!wrong && story.root_causes.length > 0 && html`<${Form} label="Wrong cause" onSubmit=${(event) => change('PUT', path('/wrong-cause'), fields(event))}>
        <label>What the cause was, if it is known <input name="cause" maxlength="4000" /></label><${Who} /><button>Mark as wrong</button><//>`}
      ${!story.silence && html`<${Form} label="Silence" onSubmit=${(event) => {
        const { keyed, ...body } = fields(event);
        change('POST', '/api/v1/silences', { ...body, rule: story.rule, key: keyed ? story.key : {} });
      }}>
        <p>Stories of the rule <code>${story.rule}</code> are stored and listed, and marked as silenced.</p>
        <label>For <select name="for"><option value="1h">1 hour</option><option value="4h">4 hours</option><option value="24h">1 day</option><option value="7d">7 days</option></select></label>
        <label class="check"><input type="checkbox" name="keyed" value="1" checked /> only for ${Object.entries(story.key).map(([key, value]) => `${key}=${value}`).join(', ') || 'this key'}</label>
        <label>Reason <input name="reason" maxlength="4000" /></label><${Who} /><button>Silence</button><//>`}
    </div></section>`;
}
