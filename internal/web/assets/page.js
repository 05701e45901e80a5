// Live updates. Everything works without this file: by reloading the page. When something
// changed that the page shows, the page is fetched again and its parts take the place of
// those that are there, so that there is one way to make them.
"use strict";

(() => {
  const query = document.body.dataset.live;
  if (query === undefined) {
    return;
  }
  const slowest = 30000; // between two fetches, however slow they are
  const idle = 30000; // without news: times such as "2 min ago" grow old
  let source = null;
  let timer = 0;
  let due = 0; // when timer ends
  let cost = 0; // of the last fetch: a large page is fetched less often
  let busy = false;
  let again = false;

  const say = (text) => {
    const live = document.getElementById("live");
    if (live.textContent !== text) {
      live.textContent = text;
    }
  };

  // later fetches the page in ms, unless it is to be fetched earlier.
  const later = (ms) => {
    const at = Date.now() + ms;
    if (timer !== 0 && due <= at) {
      return;
    }
    clearTimeout(timer);
    due = at;
    timer = setTimeout(refresh, ms);
  };

  const changed = () => later(Math.min(slowest, Math.max(300, 4 * cost)));

  async function refresh() {
    clearTimeout(timer);
    timer = 0;
    if (document.hidden) {
      return;
    }
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    const began = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { "X-Refresh": "1" }, cache: "no-store" });
      if (answer.redirected && new URL(answer.url).pathname === "/login") {
        location.reload();
        return;
      }
      if (answer.ok) {
        replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } else if (answer.status === 404) {
        say("no longer there: reload the page");
      }
    } catch {
      say("the daemon does not answer; trying again");
    } finally {
      cost = Date.now() - began;
      busy = false;
      later(again ? 300 : idle);
      again = false;
    }
  }

  // replace takes over the parts of a newer page, and leaves alone what somebody is
  // typing into. What is open stays open, and the focus stays where it was.
  function replace(newer) {
    for (const part of newer.querySelectorAll("[data-part]")) {
      const here = document.getElementById(part.id);
      if (!here || here.innerHTML === part.innerHTML) {
        continue;
      }
      const active = here.contains(document.activeElement) ? document.activeElement : null;
      if (active && active.matches("input, select, textarea")) {
        continue;
      }
      for (const details of here.querySelectorAll("details[data-key]")) {
        const same = part.querySelector(`details[data-key="${CSS.escape(details.dataset.key)}"]`);
        if (same) {
          same.open = details.open;
        }
      }
      const focus = active ? place(here, active) : -1;
      if (part.dataset.say && part.dataset.say !== here.dataset.say) {
        document.getElementById("said").textContent = part.dataset.say;
      }
      here.dataset.say = part.dataset.say || "";
      here.replaceChildren(...part.childNodes);
      if (focus >= 0) {
        const all = focusable(here);
        if (all.length > 0) {
          all[Math.min(focus, all.length - 1)].focus({ preventScroll: true });
        }
      }
    }
  }

  const focusable = (part) => [...part.querySelectorAll("a[href], button, summary, [tabindex]")];
  const place = (part, element) => focusable(part).indexOf(element);

  function open() {
    if (source || document.hidden || query === "none") {
      return;
    }
    source = new EventSource(query === "" ? "/live" : `/live?${query}`);
    source.addEventListener("open", () => {
      say("live");
      refresh();
    });
    source.addEventListener("delivery", changed);
    source.addEventListener("missed", changed);
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) {
        // Refused: the session has ended, or there are too many readers.
        source = null;
        say("updates every 30 s");
        later(300);
      } else {
        say("reconnecting");
      }
    });
  }

  // A tab that nobody sees gives its connection back: browsers allow six.
  function close() {
    if (source) {
      source.close();
      source = null;
    }
    clearTimeout(timer);
    timer = 0;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else {
      open();
      later(300);
    }
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      open();
      later(300);
    }
  });
  say(query === "none" ? "updates every 30 s" : "connecting");
  open();
  later(idle);
})();
