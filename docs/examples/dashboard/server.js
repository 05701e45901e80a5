'use strict';

const { app } = require('./app');
const { Store } = require('./store');

async function main() {
  const secret = process.env.PEANUTS_SECRET;
  if (!secret) throw new Error('PEANUTS_SECRET is not set; it is the secret of the webhook in the file of the relay');
  const store = await Store.open(process.env.DATA_FILE || 'entries.json');
  const server = app({ secret, store }).listen(Number(process.env.PORT ?? 3000), '127.0.0.1', (err) => {
    if (err) fail(err);
    else console.log(`listening on ${server.address().port}`);
  });
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
      server.close(); // what is under way is stored and answered
      server.closeIdleConnections();
    });
  }
}

function fail(err) {
  console.error(`dashboard: ${err.message}`);
  process.exit(1);
}

main().catch(fail);
