const express = require('express');
const { Webhook } = require('standardwebhooks');

const webhook = new Webhook(process.env.PEANUTS_SECRET);
const app = express();

app.post('/', express.raw({ type: '*/*', limit: '5mb' }), (req, res) => {
  try {
    webhook.verify(req.body.toString(), req.headers);
  } catch (err) {
    return res.status(401).send(err.message);
  }
  res.sendStatus(204);
});

const server = app.listen(process.env.PORT || 3000, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
