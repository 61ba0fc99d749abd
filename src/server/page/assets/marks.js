// Marks that operators put on a story: acknowledgement, notes, a wrong or right cause, a silence.
import { html, useRef, useState } from './core.js';
import { send, storyPath } from './api.js';
import { plain, silenceOf } from './text.js';
import { Failure, Text, Time } from './widgets.js';

const NAME = 'tapio.name';

function Who() {
  return html`<label>Your name <input name="by" defaultValue=${localStorage.getItem(NAME) ?? ''} maxlength="200" autocomplete="name" /></label>`;
}

/// Sends changes, and remembers the name: `{ error, isSending, change }`. `change` returns whether
/// the server confirmed it.
function useChange(onDone) {
  const [state, setState] = useState({ error: null, isSending: false });
  const change = async (method, path, body) => {
    if (body?.by) localStorage.setItem(NAME, body.by);
    setState({ error: null, isSending: true });
    try {
      await send(method, path, body);
    } catch (error) {
      setState({ error, isSending: false });
      return false;
    }
    setState({ error: null, isSending: false });
    onDone();
    return true;
  };
  return { ...state, change };
}

/// Fields of a form that aren't empty.
function fields(form) {
  const all = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(all.filter(([, value]) => value !== ''));
}

function Notes({ notes }) {
  return html`<ul class="notes">${notes.map((note) => html`<li key=${note.time}>
    <${Text} of=${note.text} most=${1000} /> <span class="by">${note.by ? `${note.by}, ` : ''}<${Time} of=${note.time} /></span></li>`)}</ul>`;
}

const isMissing = (error) => error.status === 0 || error.status === 401 || error.status >= 500;

/// A form for a change. It keeps what was entered until the server confirms the change.
/// `request(fields)`: the method, the path and the body.
function Form({ label, button, children, request, onDone }) {
  const { error, isSending, change } = useChange(onDone);
  const form = useRef();
  const onSubmit = async (event) => {
    event.preventDefault();
    if (!isSending && await change(...request(fields(form.current)))) form.current?.reset();
  };
  return html`<details><summary>${label}</summary>
    <form class="mark-form" ref=${form} onSubmit=${onSubmit}>${children}<button disabled=${isSending}>${button}</button></form>
    ${error && html`<${Failure} error=${error} hint=${isMissing(error) && 'The server didn’t confirm it. The form has what you entered: send it again.'} />`}</details>`;
}

/// The marks of a story and the forms to change them. `onChange` is called after a change.
export function Marks({ story, onChange }) {
  const { error, change } = useChange(onChange);
  const { acknowledged, wrong_cause: wrong, right_cause: right, notes = [] } = story.annotations ?? {};
  const path = (below) => storyPath(story.id, below);
  const silence = silenceOf(story);
  return html`<section aria-labelledby="marks"><h2 id="marks">Work on this story</h2>
    ${error && html`<${Failure} error=${error} />`}
    <div class="marks-state">
      ${acknowledged && html`<p>Acknowledged${acknowledged.by ? ` by ${acknowledged.by}` : ''}, <${Time} of=${acknowledged.time} />.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', path('/acknowledgement'))}>Take back</button></p>`}
      ${wrong && html`<p>Marked: the first cause is wrong${wrong.cause ? html`. The cause was: <${Text} of=${wrong.cause} />` : ''}.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', path('/wrong-cause'))}>Take back</button></p>`}
      ${right && html`<p>Marked: the first cause is right${right.by ? ` (${right.by})` : ''}.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', path('/right-cause'))}>Take back</button></p>`}
      ${silence && html`<p>Silenced until <${Time} of=${silence.until} />${silence.reason ? html`: <${Text} of=${silence.reason} />` : ''}.
        ${' '}<button type="button" class="small" onClick=${() => change('DELETE', `/api/v1/silences/${silence.id}`)}>End the silence</button></p>`}
      ${notes.length > 0 && html`<${Notes} notes=${notes} />`}
    </div>
    <div class="forms">
      ${!acknowledged && html`<${Form} label="Acknowledge" button="Acknowledge" onDone=${onChange} request=${(body) => ['PUT', path('/acknowledgement'), body]}>
        <${Who} /><//>`}
      <${Form} label="Add a note" button="Add" onDone=${onChange} request=${(body) => ['POST', path('/notes'), body]}>
        <label>Note <textarea name="text" maxlength="4000" required rows="3"></textarea></label><${Who} /><//>
      ${!wrong && !right && story.root_causes.length > 0 && html`<${Form} label="Right cause" button="Mark as right" onDone=${onChange} request=${(body) => ['PUT', path('/right-cause'), body]}>
        <${Who} /><//>`}
      ${!wrong && story.root_causes.length > 0 && html`<${Form} label="Wrong cause" button="Mark as wrong" onDone=${onChange} request=${(body) => ['PUT', path('/wrong-cause'), body]}>
        <label>What the cause was, if it is known <input name="cause" maxlength="4000" /></label><${Who} /><//>`}
      ${!silence && html`<${Form} label="Silence" button="Silence" onDone=${onChange}
          request=${({ keyed, ...body }) => ['POST', '/api/v1/silences', { ...body, rule: story.rule, key: keyed ? story.key : {} }]}>
        <p>Stories of the rule <code>${plain(story.rule)}</code> are stored and listed, and marked as silenced.</p>
        <label>For <select name="for"><option value="1h">1 hour</option><option value="4h">4 hours</option><option value="24h">1 day</option><option value="7d">7 days</option></select></label>
        <label class="check"><input type="checkbox" name="keyed" value="1" defaultChecked /> only for ${Object.entries(story.key).map(([key, value]) => plain(`${key}=${value}`)).join(', ') || 'this key'}</label>
        <label>Reason <input name="reason" maxlength="4000" /></label><${Who} /><//>`}
    </div></section>`;
}
