// Keeps a part of the page as the server would show it now: whenever an event of it comes, the page is asked for again
// and the part is exchanged. Where the stream cannot be followed, the part is renewed every few seconds.
import { follow } from "./events.js";

const EVERY = 700;
const WITHOUT_STREAM = 5000;

const first = document.querySelector("[data-live]");
let connected = false;
let due = 0;
let busy = false;
let again = false;

async function renew() {
  if (document.querySelector("dialog[open]")) { soon(); return; } // somebody is answering a question about this part
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(window.location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected || answer.status === 404) { window.location.reload(); return; }
    if (!answer.ok) return;
    if (document.querySelector("dialog[open]")) { again = true; return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (next) exchange(part, document.adoptNode(next));
    }
    show();
  } catch {
    // the service is away for a moment; the next event or look tries again
  } finally {
    busy = false;
    if (again) { again = false; soon(); }
  }
}

function exchange(part, next) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const mark = focused?.dataset.focus;
  const open = [...part.querySelectorAll("details[open][id]")].map((details) => details.id);
  part.replaceWith(next);
  for (const id of open) next.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
  if (!focused) return;
  const target = mark ? next.querySelector(`[data-focus="${CSS.escape(mark)}"]`) : null;
  if (target) target.focus();
  else { next.setAttribute("tabindex", "-1"); next.focus({ preventScroll: true }); }
}

function soon() {
  clearTimeout(due);
  due = setTimeout(renew, EVERY);
}

function show() {
  for (const sign of document.querySelectorAll(".live")) {
    sign.classList.toggle("on", connected);
    sign.textContent = connected ? "live" : "every few seconds";
  }
}

if (first && document.body.dataset.events === "on") {
  const wanted = {
    kinds: (first.dataset.kinds ?? "").split(" ").filter(Boolean),
    tasks: first.dataset.task ? [first.dataset.task] : [],
    since: first.dataset.since ? Number(first.dataset.since) : null,
  };
  let waiting = 0;
  follow(wanted, () => { const now = Date.now(); if (now - waiting > EVERY) { waiting = now; renew(); } else soon(); }, (state) => { connected = state; show(); });
  setInterval(() => { if (!connected && !document.hidden && !document.querySelector("[data-live][data-over]")) renew(); }, WITHOUT_STREAM);
}
