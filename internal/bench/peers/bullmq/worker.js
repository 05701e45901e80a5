// A webhook daemon on BullMQ, the way its user would write one, to be measured beside
// the relay: one process takes events on a Unix socket and adds a job before it answers,
// another signs each event and posts it. Each helper has a queue and a worker of its own.
//
//   node worker.js ingest
//   node worker.js deliver
//
// REDIS is the Unix socket of a Redis that runs with appendfsync always, LISTEN the socket
// for events, TO a JSON list of {helper, concurrency, url}, SHIM_SECRET the signing secret.
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { Queue, Worker } from 'bullmq';
import { Agent, request } from 'undici';

const { REDIS, LISTEN, SHIM_SECRET } = process.env;
const to = JSON.parse(process.env.TO);
const maxEvent = 1 << 20;
const attemptTimeout = 30_000; // ms, the relay's default
const schedule = [60_000, 300_000, 1_800_000]; // ms, the relay's default

function ingest() {
  const queues = new Map(to.map((d) => [d.helper, new Queue(d.helper, { connection: { path: REDIS } })]));
  // The backoff strategy is the worker's; completed jobs are removed, as the manual advises.
  const options = { attempts: schedule.length + 1, backoff: { type: 'schedule' }, removeOnComplete: true };
  const answer = (res, status, text) => {
    res.statusCode = status;
    res.end(text);
  };
  const take = async (body, res) => {
    let helper;
    try {
      helper = JSON.parse(body).helper.id;
    } catch (e) {
      return answer(res, 400, String(e));
    }
    const queue = queues.get(helper);
    if (!queue) return answer(res, 404, 'no such helper');
    try {
      await queue.add('webhook', body, options);
    } catch (e) {
      return answer(res, 500, String(e));
    }
    return answer(res, 202, '');
  };
  createServer((req, res) => {
    const chunks = [];
    let size = 0;
    req.on('data', (c) => {
      size += c.length;
      if (size > maxEvent) req.destroy();
      else chunks.push(c);
    });
    req.on('end', () => take(Buffer.concat(chunks).toString(), res));
  }).listen(LISTEN);
}

function deliver() {
  const settings = { backoffStrategy: (attempt) => schedule[attempt - 1] };
  for (const d of to) {
    const dispatcher = new Agent({ connections: d.concurrency, headersTimeout: attemptTimeout, bodyTimeout: attemptTimeout });
    const post = async (job) => {
      const signature = 'sha256=' + createHmac('sha256', SHIM_SECRET).update(job.data).digest('hex');
      const headers = { 'content-type': 'application/json', 'x-peanuts-signature': signature };
      const r = await request(d.url, { method: 'POST', body: job.data, dispatcher, headers });
      await r.body.dump();
      if (Math.floor(r.statusCode / 100) !== 2) throw new Error(`status ${r.statusCode}`);
    };
    const worker = new Worker(d.helper, post, { connection: { path: REDIS, maxRetriesPerRequest: null }, concurrency: d.concurrency, settings });
    worker.on('error', (e) => console.error(e.message));
  }
}

({ ingest, deliver })[process.argv[2]]();
