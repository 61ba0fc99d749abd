// The page in a real browser, on a real agent with its server. scripts/test-page.sh runs this.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { chromium } from 'playwright-core';
import { cascade, recorded, startAgent } from './agent.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PICTURES = process.env.PICTURES ?? join(import.meta.dirname, '../../target/page-test/pictures');
const CASCADE = 'nginx.service failed; its pods and clients fail too';
const HOSTILE = `<img src=x onerror="document.title='taken'"> \u202egnp.exe \u0000 \u001b[31mred <script>document.title='taken'</script>`;

let agent;
let browser;
let errors;

async function open(path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
  const page = await context.newPage();
  page.on('pageerror', (error) => errors.push(`error: ${error.message}`));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && errors.push(`console: ${message.text()}`));
  await page.goto(agent.url + path);
  return page;
}

const rows = (page) => page.locator('.story-row');
const close = (page) => page.context().close();

before(async () => {
  mkdirSync(PICTURES, { recursive: true });
  agent = await startAgent({ server: ', trace_url: "https://tempo.example/trace/{trace_id}"' });
  // In the order of time: an event that is hours late starts no story.
  const events = ['nginx-cascade', 'kernel-log', 'pod-startup', 'fork-bomb'].flatMap(recorded);
  agent.write(events.sort((a, b) => Date.parse(a.time) - Date.parse(b.time)));
  agent.write(cascade('hostile', (event) => ({ ...event, message: event.id.includes('emerg') ? `nginx: [emerg] ${HOSTILE} ${'x'.repeat(20_000)} in /etc/\u001b[31m\u202enginx.conf:12` : event.message })));
  await agent.until('all stories', async () => {
    const { items } = await agent.api('/api/v1/stories?limit=1000&pattern=cascade-failure');
    return items.length >= 2;
  });
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
});

beforeEach(() => { errors = []; });

after(async () => {
  await browser?.close();
  await agent?.stop();
});

async function openCascade(page) {
  await page.getByRole('link', { name: new RegExp(CASCADE) }).click();
  await page.getByRole('heading', { level: 1, name: CASCADE }).waitFor();
}

describe('stories', () => {
  it('leads from the list by a filter to the evidence, and an acknowledgement stays', async () => {
    const page = await open('/stories');
    await rows(page).first().waitFor();
    const all = await rows(page).count();
    await page.getByLabel('Pattern').fill('cascade-failure');
    await page.getByRole('button', { name: 'Filter' }).click();
    await page.waitForURL(/pattern=cascade-failure/);
    // The open one comes first, and then the closed one.
    await page.waitForFunction(() => document.querySelectorAll('.story-row').length === 2);
    assert.ok(all > 2, `${all} without the filter`);
    await page.getByLabel('Entity').fill('host.name=node-b');
    await page.getByRole('button', { name: 'Filter' }).click();
    await page.waitForURL(/entity=/);
    await page.waitForFunction(() => document.querySelectorAll('.story-row').length === 1);
    await openCascade(page);
    await page.locator('table.evidence').waitFor();
    const text = await page.locator('main').innerText();
    for (const expected of ['Most likely cause: nginx configuration error', 'check config /etc/nginx/nginx.conf:12', 'pod shop/checkout-5f6d-abcde', 'Named by the rule', '2. nginx.service: exit-code']) {
      assert.ok(text.includes(expected), `${expected} in: ${text}`);
    }
    assert.equal(await page.locator('.member').count(), 4, 'a mark for each event');
    const trace = await page.getByRole('link', { name: 'Open the trace' }).getAttribute('href');
    assert.match(trace, /^https:\/\/tempo\.example\/trace\/[0-9a-f]{32}$/);
    await page.getByText('Acknowledge', { exact: true }).first().click();
    await page.getByLabel('Your name').first().fill('ann');
    await page.getByRole('button', { name: 'Acknowledge' }).click();
    await page.getByText('Acknowledged by ann').waitFor();
    await page.reload();
    await page.getByText('Acknowledged by ann').waitFor();
    assert.deepEqual(errors, []);
    await close(page);
  });

  it('shows the details of an event, and the events as a table', async () => {
    const page = await open('/stories?pattern=cascade-failure&entity=host.name%3Dnode-b');
    await openCascade(page);
    await page.locator('.member.cause').first().click();
    const details = page.getByRole('complementary', { name: 'Selected event' });
    await details.waitFor();
    assert.match(await details.innerText(), /unknown directive/);
    await page.getByText('The same as a table').click();
    assert.equal(await page.locator('table.members tbody tr').count(), 4);
    await page.getByRole('button', { name: 'Show as a table' }).click();
    assert.match(await page.locator('#entities').locator('..').innerText(), /unit nginx\.service/);
    await page.getByRole('button', { name: 'Load them' }).click();
    await page.locator('.event-row').first().waitFor();
    assert.deepEqual(errors, []);
    await close(page);
  });

  it('answers what happened, why, whom it hits and what to do on the first screen', async () => {
    const stories = [
      ['cascade-failure', 'host.name=node-b', 'nginx configuration error', ['systemd', 'k8s', 'ebpf'], 'check config'],
      ['pod-deployment-success', 'k8s.pod.name=web-7d9c5b-x2x7p', 'scheduled deployment', ['systemd', 'cni', 'k8s'], null],
    ];
    for (const [pattern, entity, cause, sources, action] of stories) {
      const { items: [story] } = await agent.api(`/api/v1/stories?pattern=${pattern}&entity=${encodeURIComponent(entity)}`);
      const page = await open(`/stories/${story.id}`);
      const isOnFirstScreen = async (locator, text) => {
        const box = await locator.first().boundingBox();
        assert.ok(box && box.y + box.height < 900, `${pattern}: ${text} at ${JSON.stringify(box)}`);
      };
      await isOnFirstScreen(page.getByText(`Most likely cause: ${cause}`), cause);
      await isOnFirstScreen(page.getByText('Business impact'), 'the impact');
      await isOnFirstScreen(page.locator('.lane'), 'the time line');
      if (action) await isOnFirstScreen(page.getByText(action), action);
      const labels = await page.locator('.lane .label').allTextContents();
      for (const source of sources) assert.ok(labels.includes(source), `${pattern}: ${source} in ${labels}`);
      // Every member is in the trace, as the store has it.
      const { items: events } = await agent.api(`/api/v1/stories/${story.id}/events?limit=1000`);
      const stored = new Map(events.map((event) => [event.id, event.trace_id]));
      for (const { id } of story.members) assert.equal(stored.get(id), story.trace_id, `${pattern}: ${id}`);
      await page.screenshot({ path: join(PICTURES, `${pattern}.png`) });
      await close(page);
    }
    assert.deepEqual(errors, []);
  });

  it('shows all events of a story that keeps a part of them', async () => {
    const { items: [story] } = await agent.api('/api/v1/stories?pattern=fork-bomb');
    assert.ok(story.members_total > story.members.length, `${story.name}: ${story.members_total}`);
    const page = await open(`/stories/${story.id}`);
    const shown = async () => Number(/of ([\d,]+) event/.exec(await page.locator('.time-line').getAttribute('aria-label'))[1].replace(',', ''));
    await page.getByText('the first and the latest').waitFor();
    assert.equal(await shown(), story.members.length);
    await page.getByRole('button', { name: 'Show all events' }).click();
    await page.getByText('all that the server has').waitFor();
    assert.ok(await shown() >= story.members_total, `${await shown()} of ${story.members_total}`);
    await page.locator('.time-line').focus();
    for (const key of ['+', '+', 'ArrowRight', '-', '0']) await page.keyboard.press(key);
    await page.locator('.member').first().click();
    await page.getByRole('complementary', { name: 'Selected event' }).waitFor();
    assert.deepEqual(errors, []);
    await close(page);
  });

  it('announces new stories without moving the list', async () => {
    const page = await open('/stories?pattern=cascade-failure');
    await rows(page).first().waitFor();
    const first = await rows(page).first().innerText();
    agent.write(cascade('fresh'));
    const banner = page.locator('.banner');
    await banner.waitFor({ timeout: 60_000 });
    assert.equal((await rows(page).first().innerText()).split('\n')[0], first.split('\n')[0]);
    assert.match(await banner.innerText(), /^1 new story/);
    const before = await rows(page).count();
    await banner.click();
    await page.waitForFunction((count) => document.querySelectorAll('.story-row').length > count, before);
    assert.deepEqual(errors, []);
    await close(page);
  });

  it('says how to cause a story where there is none', async () => {
    const page = await open('/stories?node=nowhere');
    await page.getByText('No story matches these filters').waitFor();
    assert.deepEqual(errors, []);
    await close(page);
  });
});

describe('hostile text', () => {
  it('is text, whatever is in it', async () => {
    const page = await open('/stories?pattern=cascade-failure&entity=host.name%3Dhostile');
    await rows(page).first().click();
    await page.locator('.member').first().waitFor();
    await page.getByText('The same as a table').click();
    const text = await page.locator('main').innerText();
    assert.ok(text.includes('<img src=x onerror='), 'the element is shown as text');
    assert.ok(text.includes('\u27e8U+202E\u27e9') && text.includes('\u241b[31m'), 'controls are symbols');
    assert.ok(!/[\u202e\u001b\u0000]/.test(text));
    assert.ok(text.includes('Show all'), 'a long text is cut');
    assert.equal(await page.locator('main img, main script').count(), 0);
    assert.ok(!(await page.title()).includes('taken'));
    const size = await page.evaluate(() => document.documentElement.outerHTML.length);
    assert.ok(size < 400_000, `${size} characters`);
    assert.deepEqual(errors, []);
    await close(page);
  });

  it('in an address is text, too', async () => {
    const page = await open(`/entities/${encodeURIComponent('systemd.unit=<img src=x onerror=alert(1)>')}`);
    await page.getByText('No story is about this entity.').waitFor();
    assert.match(await page.locator('h1').innerText(), /<img src=x/);
    assert.deepEqual(errors, []);
    await close(page);
  });
});

describe('keyboard', () => {
  it('is enough to find, open and read a story', async () => {
    const page = await open('/stories?pattern=cascade-failure');
    await rows(page).first().waitFor();
    await page.keyboard.press('j');
    await page.keyboard.press('j');
    await page.keyboard.press('k');
    await page.keyboard.press('Enter');
    await page.locator('.time-line').waitFor();
    await page.locator('.time-line').focus();
    await page.keyboard.press('+');
    await page.keyboard.press('0');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.getByRole('complementary', { name: 'Selected event' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('complementary').waitFor({ state: 'detached' });
    await page.keyboard.press('?');
    await page.getByRole('dialog').waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('r');
    await page.waitForURL(/\/rules$/);
    await page.keyboard.press('/');
    assert.equal(await page.evaluate(() => document.activeElement.tagName), 'INPUT');
    assert.deepEqual(errors, []);
    await close(page);
  });
});

describe('appearance', () => {
  it('has no serious finding of axe, light and dark', async () => {
    const story = (await agent.api('/api/v1/stories?pattern=cascade-failure&entity=host.name%3Dnode-b')).items[0];
    for (const colorScheme of ['light', 'dark']) {
      for (const [name, path] of [['stories', '/stories'], ['story', `/stories/${story.id}`], ['agents', '/agents'], ['rules', '/rules'], ['entity', `/entities/${encodeURIComponent('systemd.unit=nginx.service')}`]]) {
        const page = await open(path, { colorScheme, bypassCSP: true });
        await page.locator('h1').waitFor();
        await page.waitForLoadState('load');
        await page.waitForTimeout(700);
        await page.screenshot({ path: join(PICTURES, `${name}-${colorScheme}.png`), fullPage: name !== 'rules' });
        await page.evaluate(AXE);
        const { violations } = await page.evaluate(() => globalThis.axe.run());
        const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
        assert.deepEqual(serious.map(({ id, nodes }) => `${name}: ${id}: ${nodes[0].html}: ${nodes[0].failureSummary}`), []);
        await close(page);
      }
    }
  });

  it('fits screens from 360 pixels to 4k', async () => {
    const story = (await agent.api('/api/v1/stories?pattern=cascade-failure&entity=host.name%3Dnode-b')).items[0];
    for (const width of [360, 768, 3840]) {
      for (const [name, path] of [['stories', '/stories'], ['story', `/stories/${story.id}`], ['rules', '/rules']]) {
        const page = await open(path, { viewport: { width, height: 800 } });
        await page.locator('h1').waitFor();
        await page.waitForTimeout(500);
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(over <= 0, `${path}: ${over} pixels too wide at ${width}`);
        await page.screenshot({ path: join(PICTURES, `${name}-${width}.png`) });
        await close(page);
      }
    }
    assert.deepEqual(errors, []);
  });

  it('loads less than 150 KiB', async () => {
    const page = await open('/stories');
    await rows(page).first().waitFor();
    const bytes = await page.evaluate(() => performance.getEntriesByType('resource')
      .filter((entry) => !entry.name.includes('/api/')).reduce((sum, entry) => sum + entry.transferSize, 0));
    assert.ok(bytes > 10_000 && bytes < 150 * 1024, `${bytes} bytes`);
    await close(page);
  });
});

describe('a server that is away', () => {
  it('is reported, and the page goes on when it is back', async () => {
    const page = await open('/stories');
    await rows(page).first().waitFor();
    await page.route('**/api/v1/**', (route) => route.abort());
    await page.getByLabel('State').selectOption('closed');
    await page.getByText('The server can’t be reached').waitFor();
    await page.unroute('**/api/v1/**');
    await page.getByRole('button', { name: 'Try again' }).click();
    await rows(page).first().waitFor();
    await close(page);
  });
});

/// A story of its own, and a page that shows it.
async function openStoryOf(node, options = {}) {
  agent.write(cascade(node));
  const find = async () => (await agent.api(`/api/v1/stories?pattern=cascade-failure&node=page-test&entity=node%3D${node}`)).items?.[0];
  await agent.until(`the story of ${node}`, async () => Boolean(await find()));
  const story = await find();
  const page = await open(`/stories/${story.id}`, options);
  await page.locator('table.evidence').waitFor();
  return { story, page };
}

describe('marks', () => {
  it('are kept in their form until the server confirms them', async () => {
    const { page } = await openStoryOf('offline');
    const form = page.locator('details', { has: page.getByText('Add a note', { exact: true }) });
    await form.locator('summary').click();
    await form.getByLabel('Note').fill('replaced the disk');
    await page.context().setOffline(true);
    await form.getByRole('button', { name: 'Add' }).click();
    const failure = form.getByRole('alert');
    await failure.getByText('send it again').waitFor();
    assert.match(await failure.innerText(), /can’t be reached/);
    assert.doesNotMatch(await page.locator('main').innerText(), /tries again/);
    assert.equal(await form.getByLabel('Note').inputValue(), 'replaced the disk');
    await page.screenshot({ path: join(PICTURES, 'not-confirmed.png'), fullPage: true });
    await page.context().setOffline(false);
    await form.getByRole('button', { name: 'Add' }).click();
    await page.locator('.notes').getByText('replaced the disk').waitFor();
    await failure.waitFor({ state: 'detached' });
    assert.equal(await form.getByLabel('Note').inputValue(), '');
    await close(page);
  });

  it('that are made elsewhere are shown at once, on the story and in the list', async () => {
    const { story, page } = await openStoryOf('elsewhere');
    const list = await open('/stories?entity=node%3Delsewhere');
    await rows(list).getByText('Cause: nginx').first().waitFor();
    await page.getByText('Add a note', { exact: true }).click();
    await page.getByLabel('Note').fill('half a no');
    const path = `/api/v1/stories/${story.id}`;
    await agent.send('PUT', `${path}/acknowledgement`, { by: 'bob' });
    const silence = await agent.send('POST', '/api/v1/silences', { rule: story.rule, key: story.key, for: '1h', reason: 'load test' });
    await page.getByText('Acknowledged by bob').waitFor();
    await page.getByText('Silenced until').waitFor();
    assert.equal(await page.getByLabel('Note').inputValue(), 'half a no', 'what somebody is typing stays');
    await rows(list).getByText('acknowledged').waitFor();
    await rows(list).getByText('silenced').waitFor();
    await agent.send('PUT', `${path}/wrong-cause`, { by: 'bob', cause: 'the disk' });
    await rows(list).getByText('Cause, by bob: the disk').waitFor();
    await agent.send('DELETE', `${path}/acknowledgement`);
    await agent.send('DELETE', `/api/v1/silences/${silence.id}`);
    await page.getByText('Acknowledged by bob').waitFor({ state: 'detached' });
    await page.getByText('Silenced until').waitFor({ state: 'detached' });
    await rows(list).getByText('acknowledged').waitFor({ state: 'detached' });
    await rows(list).getByText('silenced').waitFor({ state: 'detached' });
    assert.deepEqual(errors, []);
    await close(list);
    await close(page);
  });

  it('are in the headline and in the Markdown', async () => {
    const { story, page } = await openStoryOf('marked', { timezoneId: 'UTC', permissions: ['clipboard-read', 'clipboard-write'] });
    const path = `/api/v1/stories/${story.id}`;
    const lead = page.locator('.lead');
    assert.match(await lead.innerText(), /^Most likely cause: nginx configuration error.* \(confidence \d+ %\)\.$/);
    await agent.send('PUT', `${path}/right-cause`, { by: 'ann' });
    await lead.getByText('Cause, marked as right by ann: nginx configuration error').waitFor();
    await agent.send('PUT', `${path}/wrong-cause`);
    await lead.getByText('Marked as wrong by an operator: nginx configuration error').waitFor();
    await agent.send('PUT', `${path}/wrong-cause`, { by: 'ann', cause: 'the *disk*' });
    await lead.getByText('Cause, by ann: the *disk*. Marked as wrong: nginx configuration error').waitFor();
    assert.doesNotMatch(await lead.innerText(), /Most likely/);
    await page.screenshot({ path: join(PICTURES, 'marked-wrong.png') });
    await agent.send('PUT', `${path}/acknowledgement`, { by: 'ann' });
    await agent.send('POST', `${path}/notes`, { by: 'ann', text: 'replaced\nit' });
    await agent.send('POST', '/api/v1/silences', { rule: story.rule, key: story.key, for: '1h', reason: 'load test' });
    await page.getByText('Silenced until').waitFor();
    await page.getByRole('button', { name: 'Copy as Markdown' }).click();
    await page.getByText('Copied').waitFor();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.doesNotMatch(text, /Most likely/);
    assert.match(text, /\nCause, by ann: the \\\*disk\\\*\. Marked as wrong: nginx configuration error/);
    for (const line of ['acknowledged by ann', 'wrong cause by ann: the \\\\\\*disk\\\\\\*', 'note by ann: replaced it']) {
      assert.match(text, new RegExp(`\n- \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d ${line}\n`));
    }
    assert.match(text, /\n- silenced until .*: load test\n/);
    assert.match(text, / \(UTC\), /);
    const times = [...text.matchAll(/^\| (\d{4}-[^|]*) \|/gm)].map(([, time]) => time.length);
    assert.ok(times.length === 4 && new Set(times).size === 1, `one precision: ${times}`);
    assert.deepEqual(errors, []);
    await close(page);
  });
});

describe('words', () => {
  it('are those of the filters and of the terms', async () => {
    const { story, page } = await openStoryOf('worded');
    assert.match(story.state, /^(opened|updated)$/);
    const state = page.locator('.facts .state');
    assert.equal(await state.innerText(), 'open');
    assert.match(await state.getAttribute('title'), /^(opened|updated)$/);
    const numbers = await page.locator('table.evidence td.number').allTextContents();
    assert.ok(numbers.length > 4);
    for (const number of numbers) assert.match(number, /^[+−]\d+\.\d\d$/);
    await close(page);
  });

  it('of an action are copied as they are shown', async () => {
    const options = { permissions: ['clipboard-read', 'clipboard-write'] };
    const page = await open('/stories?pattern=cascade-failure&entity=node%3Dhostile', options);
    await rows(page).first().click();
    const action = page.locator('.actions li').filter({ hasText: 'nginx.conf' }).first();
    await action.getByRole('button', { name: 'Copy' }).click();
    await action.getByText('Copied').waitFor();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(text, await action.locator('span').first().innerText());
    assert.match(text, /\u27e8U\+202E\u27e9nginx\.conf/);
    assert.doesNotMatch(text, /[\u0000-\u001f\u202e]/);
    await close(page);
  });
});

describe('a server that wants a token', () => {
  it('is followed once the token is entered', async () => {
    const own = await startAgent({ token: 'token-of-ann' });
    try {
      own.write(cascade('guarded'));
      await own.until('a story', async () => (await own.api('/api/v1/stories')).items.length > 0);
      const page = await browser.newPage();
      await page.goto(`${own.url}/stories`);
      await page.getByText('not live').waitFor();
      await page.getByLabel('Token').fill('wrong');
      await page.getByRole('button', { name: 'Use it' }).click();
      await page.getByText('wants to know who you are').waitFor();
      await page.getByLabel('Token').fill('token-of-ann');
      await page.getByRole('button', { name: 'Use it' }).click();
      await rows(page).first().waitFor();
      await page.getByText('not live').waitFor({ state: 'detached' });
      own.write(cascade('guarded-too'));
      await page.locator('.banner').waitFor({ timeout: 60_000 });
      await page.close();
    } finally {
      await own.stop();
    }
  });
});
