'use strict';

const assert = require('node:assert');
const crypto = require('node:crypto');
const test = require('node:test');
const { app } = require('../app');

const secret = 'a secret of the tests';
const good = { event: 'entry.created', timestamp: '2025-01-15T14:32:00.000Z', helper: { id: 'expenses' }, entry: { id: 'e1', data: { amount: 1 }, created_at: '2025-01-15T14:32:00.000Z' } };

// serve runs the application over a store that only remembers.
async function serve(t, apply = async () => 'created') {
  const applied = [];
  const store = { apply: (id, event) => { applied.push([id, event]); return apply(); }, entries: () => [good.entry] };
  const quiet = { log() {}, error() {} };
  const server = app({ secret, store, now: () => new Date('2025-01-20T00:00:00Z'), log: quiet }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }));
  const base = `http://127.0.0.1:${server.address().port}`;
  const send = (body, headers = {}) => fetch(`${base}/webhook`, { method: 'POST', body, headers: {
    'Content-Type': 'application/json', 'X-Peanuts-Delivery': 'del_1',
    'X-Peanuts-Signature': 'sha256=' + crypto.createHmac('sha256', secret).update(body).digest('hex'), ...headers } });
  return { base, send, applied };
}

test('what is signed is stored, whatever its bytes are', async (t) => {
  const { send, applied } = await serve(t);
  const odd = JSON.stringify(good).replace('"amount":1', '"amount" : 1.00,"x":"\\u00e9"'); // no fixed point of JSON.stringify
  for (const body of [JSON.stringify(good), odd]) assert.equal((await send(body)).status, 200);
  assert.deepEqual(applied.map(([id, e]) => [id, e.entry.id]), [['del_1', 'e1'], ['del_1', 'e1']]);
});

test('what is not signed with the secret is refused', async (t) => {
  const { send, applied } = await serve(t);
  const body = JSON.stringify(good);
  const other = crypto.createHmac('sha256', 'another').update(body).digest('hex');
  for (const signature of [`sha256=${other}`, other, 'sha256=', '', 'é', 'sha256=' + 'z'.repeat(64)]) {
    assert.equal((await send(body, { 'X-Peanuts-Signature': encodeURI(signature) })).status, 401, signature);
  }
  assert.deepEqual(applied, []);
});

test('what cannot be used is refused with a reason, and what is nothing to us is taken', async (t) => {
  const { send, applied } = await serve(t);
  const without = (change) => { const e = structuredClone(good); change(e); return JSON.stringify(e); };
  for (const [body, status, headers] of [
    ['{', 400], ['null', 422], ['[]', 422], [without((e) => delete e.entry), 422], [without((e) => delete e.helper.id), 422],
    [without((e) => { e.entry.data = null; }), 422], [without((e) => delete e.timestamp), 422], [JSON.stringify(good), 422, { 'X-Peanuts-Delivery': '' }],
    [without((e) => { e.event = 'user.created'; }), 200], [JSON.stringify(good), 200, { 'X-Peanuts-Test': 'true' }],
    ['"' + 'x'.repeat(6 << 20) + '"', 413],
  ]) {
    const answer = await send(body, headers);
    assert.equal(answer.status, status, body.slice(0, 80));
    if (status >= 400) assert.ok((await answer.json()).error);
  }
  assert.deepEqual(applied, []);
});

test('what could not be stored is to be sent again', async (t) => {
  const { send } = await serve(t, async () => { throw new Error('no space left on device'); });
  const answer = await send(JSON.stringify(good));
  assert.equal(answer.status, 500);
  assert.ok(!(await answer.text()).includes('device'));
});

test('the figures and the page', async (t) => {
  const { base } = await serve(t);
  assert.equal((await (await fetch(`${base}/api/stats`)).json()).total, 1);
  assert.equal((await (await fetch(`${base}/api/stats?month=2025-02`)).json()).total, 0);
  for (const month of ['2025-13', 'x', '']) assert.equal((await fetch(`${base}/api/stats?month=${month}`)).status, 400);
  assert.equal((await fetch(`${base}/api/stats?month=2025-01&month=2025-02`)).status, 400);
  const page = await fetch(`${base}/`);
  assert.match(await page.text(), /<script src="page.js" defer>/);
  assert.match(page.headers.get('content-security-policy'), /default-src 'none'/);
  for (const path of ['/page.js', '/style.css']) assert.equal((await fetch(base + path)).status, 200);
  for (const path of ['/entries.json', '/server.js', '/package.json', '/..%2fserver.js']) assert.equal((await fetch(base + path)).status, 404);
});
