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
  agent.write(cascade('hostile', (event) => ({ ...event, message: event.id.includes('emerg') ? `nginx: [emerg] ${HOSTILE} ${'x'.repeat(20_000)} in /etc/nginx/nginx.conf:12` : event.message })));
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
    await page.waitForFunction((before) => document.querySelectorAll('.story-row').length < before, all);
    assert.equal(await rows(page).count(), 2);
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
