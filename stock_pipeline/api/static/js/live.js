// Keeps a part of the page as the server would show it now: whenever an event of it comes, the page is asked for again
// and the part is exchanged. Where the stream cannot be followed, the part is renewed every few seconds.
import { follow } from "./events.js";

const EVERY = 700;
const WITHOUT_STREAM = 5000;
const LEAVING = 30_000; // a download asks to leave as well, and the page stays

const first = document.querySelector("[data-live]");
let connected = false;
let due = 0;
let busy = false;
let again = false;
let pressed = false;
let left = -LEAVING;
let until = 0; // so long the service asked to be left alone

// Nothing is exchanged under a pointer that is down, whose click would be lost; behind a question about this part; nor
// while the page is left: what it shows may be gone by then, and loading it again would be the end of the way elsewhere.
function held() {
  return pressed || performance.now() - left < LEAVING || document.querySelector("dialog[open]") !== null;
}
window.addEventListener("pointerdown", () => { pressed = true; }, true);
for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { pressed = false; }, true);
window.addEventListener("pointermove", (event) => { if (!event.buttons) pressed = false; }, true); // let go elsewhere
window.addEventListener("beforeunload", () => { left = performance.now(); });

async function renew() {
  const rest = until - performance.now();
  if (held() || rest > 0) { soon(Math.max(EVERY, rest)); return; }
  if (busy) { again = true; return; }
  busy = true;
  const address = window.location.href;
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    const text = await answer.text();
    if (held() || window.location.href !== address) { again = true; return; }
    if (answer.redirected || answer.status === 404) { window.location.reload(); return; }
    if (answer.status === 429 || answer.status >= 500) {
      until = performance.now() + 1000 * (Number(answer.headers.get("Retry-After")) || 0); // a date is not kept
      throw new Error(answer.statusText);
    }
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (next) exchange(part, document.adoptNode(next));
    }
    show();
  } catch {
    soon(WITHOUT_STREAM); // the service is away for a moment, and this may have been the last event
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

function soon(wait = EVERY) {
  clearTimeout(due);
  due = setTimeout(renew, wait);
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
