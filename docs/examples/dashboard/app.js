'use strict';

const crypto = require('node:crypto');
const path = require('node:path');
const express = require('express');
const { stats } = require('./stats');

// verified compares in constant time what came with what the secret makes of the very bytes
// of the body. Anything that parses and writes them again may change them.
function verified(secret, body, header) {
  const expected = Buffer.from('sha256=' + crypto.createHmac('sha256', secret).update(body).digest('hex'));
  const given = Buffer.from(header ?? '');
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
}

// wrong says what is missing of an event; undefined when nothing is.
function wrong(event) {
  if (event === null || typeof event !== 'object') return 'the body is no object';
  if (typeof event.event !== 'string') return 'event is missing';
  if (typeof event.timestamp !== 'string') return 'timestamp is missing';
  if (typeof event.helper?.id !== 'string') return 'helper.id is missing';
  if (typeof event.entry?.id !== 'string') return 'entry.id is missing';
  if (event.entry.data === null || typeof event.entry.data !== 'object') return 'entry.data is missing';
  return undefined;
}

// app makes the application. What it answers 2xx is stored, or need not be.
function app({ secret, store, now = () => new Date(), log = console }) {
  const application = express();
  application.disable('x-powered-by');
  application.use((req, res, next) => {
    res.set('Content-Security-Policy', "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'");
    res.set('X-Content-Type-Options', 'nosniff');
    next();
  });

  application.post('/webhook', express.raw({ type: () => true, limit: '5mb' }), async (req, res) => {
    const body = Buffer.isBuffer(req.body) ? req.body : Buffer.alloc(0);
    if (!verified(secret, body, req.get('X-Peanuts-Signature'))) {
      return res.status(401).json({ error: 'the signature does not match: is PEANUTS_SECRET that of the webhook?' });
    }
    let event;
    try {
      event = JSON.parse(body);
    } catch (err) {
      return res.status(400).json({ error: `the body is not JSON: ${err.message}` });
    }
    if (req.get('X-Peanuts-Test') === 'true') return res.json({ result: 'test' }); // peanuts-relay test: not a real entry
    const deliveryId = req.get('X-Peanuts-Delivery');
    const what = deliveryId ? wrong(event) : 'the header X-Peanuts-Delivery is missing';
    if (what) return res.status(422).json({ error: what });
    if (!['entry.created', 'entry.updated', 'entry.deleted'].includes(event.event)) return res.json({ result: 'ignored' });
    try {
      const result = await store.apply(deliveryId, event);
      log.log(deliveryId, event.event, event.helper.id, event.entry.id, result);
      return res.json({ result });
    } catch (err) {
      log.error('not stored:', err.message);
      return res.status(500).json({ error: 'the event could not be stored; send it again' });
    }
  });

  application.get('/api/stats', (req, res) => {
    const month = req.query.month ?? now().toISOString().slice(0, 7);
    if (typeof month !== 'string' || !/^\d{4}-(0[1-9]|1[0-2])$/.test(month)) {
      return res.status(400).json({ error: 'month is written as 2025-01' });
    }
    return res.set('Cache-Control', 'no-store').json(stats(store.entries(), month));
  });

  application.use(express.static(path.join(__dirname, 'public')));
  application.use((err, req, res, next) => {
    if (res.headersSent) return next(err);
    return res.status(err.status ?? 500).json({ error: err.status ? err.message : 'internal error' });
  });
  return application;
}

module.exports = { app };
