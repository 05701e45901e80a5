'use strict';

const fs = require('node:fs/promises');
const path = require('node:path');

// Deliveries are remembered for longer than the relay repeats one by itself, so that a
// repeat changes nothing. Deleted entries are remembered so that an older event, which
// had to be retried, does not bring them back.
const REMEMBER_MS = 30 * 24 * 3600 * 1000;

const empty = () => ({ version: 1, entries: {}, deleted: {}, deliveries: {} });

// Store keeps entries in one JSON file. What apply has resolved is on the disk, and the file
// is whole at any moment: it is written beside its place, synced, and renamed.
class Store {
  constructor(file, state) {
    this.file = file;
    this.state = state; // what the file has, and what the write under way will add
    this.saved = JSON.stringify(state); // what the file has
    this.waiting = []; // those whose change no write has begun to take
    this.writing = false;
  }

  static async open(file) {
    let text;
    try {
      text = await fs.readFile(file, 'utf8');
    } catch (err) {
      if (err.code === 'ENOENT') return new Store(file, empty());
      throw err;
    }
    let state;
    try {
      state = JSON.parse(text);
    } catch (err) {
      throw new Error(`${file} is not JSON (${err.message}); restore it, or move it away to begin anew`);
    }
    if (state === null || typeof state !== 'object' || state.version !== 1) {
      throw new Error(`${file} is not a file of this program; name another one in DATA_FILE`);
    }
    return new Store(file, Object.assign(empty(), state));
  }

  // apply takes one event. It resolves to what became of it once that is on the disk:
  // 'created', 'updated', 'deleted', 'duplicate' or 'outdated'.
  async apply(deliveryId, event, now = Date.now()) {
    const { state } = this;
    if (Object.hasOwn(state.deliveries, deliveryId)) {
      await this.save(); // it may be on its way to the disk, under the same id
      return 'duplicate';
    }
    const result = change(state, event, now);
    state.deliveries[deliveryId] = now;
    forget(state.deliveries, now, (at) => at);
    forget(state.deleted, now, (gone) => gone.at);
    await this.save();
    return result;
  }

  // save resolves when everything that is in the state now is on the disk. Those who come
  // while a write is under way share the next one.
  save() {
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      if (!this.writing) this.writeAll();
    });
  }

  async writeAll() {
    this.writing = true;
    while (this.waiting.length > 0) {
      const served = this.waiting;
      this.waiting = [];
      const text = JSON.stringify(this.state);
      try {
        if (text !== this.saved) await replace(this.file, text);
        this.saved = text;
        for (const w of served) w.resolve();
      } catch (err) {
        // What is not on the disk did not happen: the relay sends it again.
        this.state = JSON.parse(this.saved);
        for (const w of served.concat(this.waiting)) w.reject(err);
        this.waiting = [];
      }
    }
    this.writing = false;
  }

  entries() {
    return Object.values(this.state.entries);
  }
}

// change applies an event to the state. Events of one entry may come in another order than
// they happened in: the newest timestamp wins.
function change(state, event, now) {
  const key = `${event.helper.id}/${event.entry.id}`;
  const known = state.entries[key] ?? state.deleted[key];
  if (known && event.timestamp < known.timestamp) return 'outdated';
  if (event.event === 'entry.deleted') {
    delete state.entries[key];
    state.deleted[key] = { timestamp: event.timestamp, at: now };
    return 'deleted';
  }
  const before = state.entries[key];
  delete state.deleted[key];
  state.entries[key] = {
    helper: event.helper.id,
    id: event.entry.id,
    created_at: event.entry.created_at,
    timestamp: event.timestamp,
    data: event.entry.data,
  };
  return before ? 'updated' : 'created';
}

function forget(all, now, when) {
  for (const [key, value] of Object.entries(all)) {
    if (when(value) > now - REMEMBER_MS) return; // they are in the order of their coming
    delete all[key];
  }
}

async function replace(file, text) {
  const beside = `${file}.new`;
  const f = await fs.open(beside, 'w', 0o600);
  try {
    await f.writeFile(text);
    await f.sync();
  } finally {
    await f.close();
  }
  await fs.rename(beside, file);
  const dir = await fs.open(path.dirname(file), 'r');
  try {
    await dir.sync(); // the new name is durable, too
  } finally {
    await dir.close();
  }
}

module.exports = { Store };
