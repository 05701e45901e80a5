'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const { Store } = require('../store');

const day = 24 * 3600 * 1000;

function place(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'dashboard-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  return path.join(dir, 'entries.json');
}

function event(type, id, timestamp, data = { amount: 1 }) {
  return { event: `entry.${type}`, timestamp, helper: { id: 'expenses' }, entry: { id, data, created_at: '2025-01-15T14:32:00.000Z' } };
}

const onDisk = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));

test('what apply has resolved is found by the next start', async (t) => {
  const file = place(t);
  const store = await Store.open(file);
  assert.equal(await store.apply('del_1', event('created', 'a', '2025-01-15T00:00:01.000Z')), 'created');
  assert.equal(onDisk(file).entries['expenses/a'].data.amount, 1);
  assert.equal(await store.apply('del_2', event('updated', 'a', '2025-01-15T00:00:02.000Z', { amount: 2 })), 'updated');
  assert.equal(await store.apply('del_3', event('created', 'b', '2025-01-15T00:00:03.000Z')), 'created');
  assert.equal(await store.apply('del_4', event('deleted', 'b', '2025-01-15T00:00:04.000Z')), 'deleted');
  const again = await Store.open(file);
  assert.deepEqual(again.entries(), store.entries());
  assert.deepEqual(again.entries().map((e) => [e.id, e.data.amount]), [['a', 2]]);
  assert.deepEqual(fs.readdirSync(path.dirname(file)), ['entries.json']);
});

test('a delivery that comes again changes nothing, after a restart either', async (t) => {
  const file = place(t);
  const store = await Store.open(file);
  await store.apply('del_1', event('created', 'a', '2025-01-15T00:00:01.000Z'));
  await store.apply('del_2', event('updated', 'a', '2025-01-15T00:00:02.000Z', { amount: 2 }));
  for (const s of [store, await Store.open(file)]) {
    assert.equal(await s.apply('del_1', event('created', 'a', '2025-01-15T00:00:09.000Z')), 'duplicate');
    assert.equal(s.entries()[0].data.amount, 2);
  }
});

test('an older event does not undo a newer one', async (t) => {
  const store = await Store.open(place(t));
  assert.equal(await store.apply('del_2', event('updated', 'a', '2025-01-15T00:00:02.000Z', { amount: 2 })), 'created');
  assert.equal(await store.apply('del_1', event('created', 'a', '2025-01-15T00:00:01.000Z')), 'outdated');
  assert.equal(store.entries()[0].data.amount, 2);
  assert.equal(await store.apply('del_4', event('deleted', 'a', '2025-01-15T00:00:04.000Z')), 'deleted');
  assert.equal(await store.apply('del_3', event('updated', 'a', '2025-01-15T00:00:03.000Z')), 'outdated');
  assert.deepEqual(store.entries(), []);
  assert.equal(await store.apply('del_5', event('created', 'a', '2025-01-15T00:00:05.000Z')), 'created');
});

test('a thousand at once are few writes, and all are there', async (t) => {
  const file = place(t);
  const store = await Store.open(file);
  await Promise.all(Array.from({ length: 1000 }, (_, i) => store.apply(`del_${i}`, event('created', `e${i}`, '2025-01-15T00:00:01.000Z'))));
  assert.equal(Object.keys(onDisk(file).entries).length, 1000);
});

test('what could not be written did not happen', async (t) => {
  const file = place(t);
  const store = await Store.open(file);
  await store.apply('del_1', event('created', 'a', '2025-01-15T00:00:01.000Z'));
  fs.mkdirSync(`${file}.new`); // the place where the file is written first
  const refused = await Promise.allSettled([store.apply('del_2', event('created', 'b', '2025-01-15T00:00:02.000Z')), store.apply('del_3', event('deleted', 'a', '2025-01-15T00:00:03.000Z'))]);
  assert.deepEqual(refused.map((r) => r.status), ['rejected', 'rejected']);
  assert.deepEqual(store.entries().map((e) => e.id), ['a']);
  fs.rmdirSync(`${file}.new`);
  assert.equal(await store.apply('del_2', event('created', 'b', '2025-01-15T00:00:02.000Z')), 'created');
  assert.deepEqual((await Store.open(file)).entries().map((e) => e.id), ['a', 'b']);
});

test('what a crash left beside the file does no harm', async (t) => {
  const file = place(t);
  const store = await Store.open(file);
  await store.apply('del_1', event('created', 'a', '2025-01-15T00:00:01.000Z'));
  fs.writeFileSync(`${file}.new`, '{"version":1,"entr');
  const again = await Store.open(file);
  await again.apply('del_2', event('created', 'b', '2025-01-15T00:00:02.000Z'));
  assert.deepEqual((await Store.open(file)).entries().map((e) => e.id), ['a', 'b']);
});

test('a file that is not ours is not written over', async (t) => {
  const file = place(t);
  for (const [text, why] of [['{"version":1', /is not JSON/], ['{"name":"x"}', /not a file of this program/], ['null', /not a file of this program/]]) {
    fs.writeFileSync(file, text);
    await assert.rejects(Store.open(file), why);
    assert.equal(fs.readFileSync(file, 'utf8'), text);
  }
});

test('what is remembered of deliveries does not grow for ever', async (t) => {
  const file = place(t);
  const store = await Store.open(file);
  await store.apply('del_1', event('created', 'a', '2025-01-15T00:00:01.000Z'), 1);
  await store.apply('del_2', event('deleted', 'a', '2025-01-15T00:00:02.000Z'), 2);
  await store.apply('del_3', event('created', 'b', '2025-01-15T00:00:03.000Z'), 20 * day);
  await store.apply('del_4', event('created', 'c', '2025-01-15T00:00:04.000Z'), 31 * day);
  const { deliveries, deleted } = onDisk(file);
  assert.deepEqual(Object.keys(deliveries), ['del_3', 'del_4']);
  assert.deepEqual(deleted, {});
});
