const crypto = require('node:crypto');
const express = require('express');

const app = express();
app.use(express.json({
  limit: '5mb',
  verify: (req, res, buf) => { req.rawBody = buf; },
}));

function verifySignature(rawBody, header) {
  const given = Buffer.from((header || '').replace('sha256=', ''), 'hex');
  const expected = crypto.createHmac('sha256', process.env.PEANUTS_SECRET).update(rawBody).digest();
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
}

app.post('/', (req, res) => {
  if (!verifySignature(req.rawBody, req.get('X-Peanuts-Signature'))) {
    return res.status(401).json({ error: 'Invalid signature' });
  }
  res.sendStatus(200);
});

const server = app.listen(process.env.PORT || 3000, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
