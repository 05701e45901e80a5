'use strict';

const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const at = (id) => document.getElementById(id);

// Texts come from whoever made the entries: they are set as text, never as HTML.
function show(stats) {
  at('month').textContent = stats.month;
  at('total').textContent = money.format(stats.total);
  at('count').textContent = stats.count;
  at('average').textContent = stats.average === null ? '–' : money.format(stats.average);
  at('categories').replaceChildren(...stats.by_category.map((c) => {
    const row = document.createElement('tr');
    for (const text of [c.category, c.count, money.format(c.total)]) {
      row.insertCell().textContent = text;
    }
    return row;
  }));
}

async function refresh() {
  try {
    const answer = await fetch('api/stats');
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    show(await answer.json());
    at('problem').hidden = true;
  } catch (err) {
    at('problem').textContent = `Not up to date: ${err.message}`;
    at('problem').hidden = false;
  }
  setTimeout(refresh, 2000);
}

refresh();
