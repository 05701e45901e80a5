const crypto = require('node:crypto');
const express = require('express');

const app = express();
app.use(express.json({ limit: '5mb' }));

app.post('/', (req, res) => {
  const expected = crypto
    .createHmac('sha256', process.env.PEANUTS_SECRET)
    .update(JSON.stringify(req.body))
    .digest('hex');
  const given = req.headers['x-peanuts-signature'] || '';
  if (given.length !== expected.length || !crypto.timingSafeEqual(Buffer.from(given), Buffer.from(expected))) {
    return res.status(401).send('Invalid signature');
  }
  res.send('OK');
});

const server = app.listen(process.env.PORT || 3000, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
