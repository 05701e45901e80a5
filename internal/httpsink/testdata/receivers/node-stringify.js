const crypto = require('node:crypto');
const express = require('express');

const app = express();
app.use(express.json({ limit: '5mb' }));

app.post('/', (req, res) => {
  const signature = 'sha256=' + crypto
    .createHmac('sha256', process.env.PEANUTS_SECRET)
    .update(JSON.stringify(req.body))
    .digest('hex');
  if (req.headers['x-peanuts-signature'] !== signature) {
    return res.status(401).json({ error: 'Invalid signature' });
  }
  res.status(200).json({ received: true });
});

const server = app.listen(process.env.PORT || 3000, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
