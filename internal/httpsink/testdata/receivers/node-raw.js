const crypto = require('node:crypto');
const http = require('node:http');

const secret = process.env.PEANUTS_SECRET;

const server = http.createServer((req, res) => {
  const chunks = [];
  req.on('data', (chunk) => chunks.push(chunk));
  req.on('end', () => {
    const body = Buffer.concat(chunks);
    const expected = 'sha256=' + crypto.createHmac('sha256', secret).update(body).digest('hex');
    const given = req.headers['x-peanuts-signature'] || '';
    if (given.length !== expected.length || !crypto.timingSafeEqual(Buffer.from(given), Buffer.from(expected))) {
      res.writeHead(401).end('bad signature');
      return;
    }
    const event = JSON.parse(body);
    console.log(req.headers['x-peanuts-delivery'], req.headers['x-peanuts-event'], event);
    res.writeHead(204).end();
  });
});

server.listen(process.env.PORT || 3000, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
