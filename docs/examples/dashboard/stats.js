'use strict';

// monthOf is the month of an entry as YYYY-MM: that of its own date, else that in which it
// was made. Times are UTC, as the relay sends them.
function monthOf(entry) {
  const date = entry.data.date;
  return String(typeof date === 'string' && /^\d{4}-\d{2}/.test(date) ? date : entry.created_at).slice(0, 7);
}

// stats sums up the entries of one month. Amounts are added in cents, so that 0.1 + 0.2 is
// 0.3. An entry without a number as its amount counts, and is in no sum.
function stats(entries, month) {
  const byCategory = new Map();
  let count = 0;
  let amounts = 0;
  let cents = 0;
  for (const entry of entries) {
    if (monthOf(entry) !== month) continue;
    const category = typeof entry.data.category === 'string' && entry.data.category !== '' ? entry.data.category : 'none';
    const sum = byCategory.get(category) ?? { count: 0, cents: 0 };
    byCategory.set(category, sum);
    count += 1;
    sum.count += 1;
    const { amount } = entry.data;
    if (typeof amount !== 'number' || !Number.isFinite(amount)) continue;
    amounts += 1;
    cents += Math.round(amount * 100);
    sum.cents += Math.round(amount * 100);
  }
  return {
    month,
    count,
    total: cents / 100,
    average: amounts === 0 ? null : Math.round(cents / amounts) / 100,
    by_category: [...byCategory]
      .map(([category, sum]) => ({ category, count: sum.count, total: sum.cents / 100 }))
      .sort((a, b) => b.total - a.total || a.category.localeCompare(b.category)),
  };
}

module.exports = { stats };
