'use strict';

const assert = require('node:assert');
const test = require('node:test');
const { stats } = require('../stats');

const entry = (data, created = '2025-01-15T14:32:00.000Z') => ({ data, created_at: created });

test('the month has its total, its average and its categories', () => {
  assert.deepEqual(stats([
    entry({ amount: 0.1, category: 'Food' }),
    entry({ amount: 0.2, category: 'Food' }),
    entry({ amount: 42.5, category: 'Rent', date: '2025-01-31' }),
    entry({ amount: 99, category: 'Rent', date: '2025-02-01' }),
    entry({ amount: 7, date: '2025-01-02' }, '2024-12-31T23:59:59.000Z'),
    entry({ amount: 'much', category: '' }),
    entry({ amount: 1000 }, '2025-02-01T00:00:00.000Z'),
  ], '2025-01'), {
    month: '2025-01', count: 5, total: 49.8, average: 12.45,
    by_category: [{ category: 'Rent', count: 1, total: 42.5 }, { category: 'none', count: 2, total: 7 }, { category: 'Food', count: 2, total: 0.3 }],
  });
});

test('a month without entries has no average', () => {
  assert.deepEqual(stats([], '2025-01'), { month: '2025-01', count: 0, total: 0, average: null, by_category: [] });
});

test('categories may have any name', () => {
  const names = ['__proto__', 'constructor', '<script>'];
  assert.deepEqual(stats(names.map((category) => entry({ amount: 1, category })), '2025-01').by_category.map((c) => c.category).sort(), names.sort());
});
