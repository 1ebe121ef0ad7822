// Follows the stream of events: over a WebSocket, or by Server-Sent Events where that does not get through. What was
// seen last is remembered, so a connection that breaks goes on where it ended.
const RETRIES = [1000, 2000, 5000, 10_000, 30_000];
const REFUSED = new Set([4400, 4401, 4403, 4429]);
const GREETING = 10_000; // what does not greet by then does not get through

export function follow({ kinds = [], tasks = [], since = null }, onEvent, onState = () => {}) {
  let last = since;
  let closed = false;
  let failures = 0;
  let connection = null;
  let timer = 0;

  function take(event) {
    if (last !== null && event.sequence <= last) return;
    last = event.sequence;
    onEvent(event);
  }

  function again(connect) {
    onState(false);
    if (closed) return;
    timer = setTimeout(connect, RETRIES[Math.min(failures, RETRIES.length - 1)]);
    failures += 1;
  }

  async function socket() {
    let ticket;
    try {
      const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";
      const answer = await fetch("/api/events/ticket", { method: "POST", headers: { "X-CSRF-Token": csrf } });
      if (answer.status === 401 || answer.status === 403) { onState(false); return; }
      if (!answer.ok) throw new Error(answer.statusText);
      ticket = (await answer.json()).ticket;
    } catch { again(socket); return; }
    if (closed) return;
    const scheme = window.location.protocol === "https:" ? "wss:" : "ws:";
    let greeted = false;
    const mine = connection = new WebSocket(`${scheme}//${window.location.host}/ws/events`);
    const patience = setTimeout(() => mine.close(), GREETING);
    mine.addEventListener("open", () => mine.send(JSON.stringify({ type: "authenticate", ticket })));
    mine.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "authenticated") {
        greeted = true;
        clearTimeout(patience);
        mine.send(JSON.stringify({ type: "subscribe", kinds, tasks, ...(last === null ? {} : { since: last }) }));
      } else if (message.type === "subscribed") {
        failures = 0;
        if (last === null) last = message.newest;
        onState(true);
      } else if (message.type === "event") {
        take(message);
      }
    });
    mine.addEventListener("close", ({ code }) => {
      clearTimeout(patience);
      if (closed) return;
      if (REFUSED.has(code)) { onState(false); return; }
      // not even greeted: perhaps a proxy that knows no WebSockets, so the other way is tried next
      again(greeted ? socket : stream);
    });
  }

  function stream() {
    if (closed) return;
    const query = new URLSearchParams(kinds.map((kind) => ["kind", kind]));
    if (tasks.length === 1) query.set("task_id", tasks[0]);
    if (last !== null) query.set("since", last);
    let opened = false;
    const mine = connection = new EventSource(`/api/events/stream?${query}`);
    mine.addEventListener("open", () => { opened = true; failures = 0; onState(true); });
    for (const kind of ["task.state", "task.progress", "publication", "alert", "alert.resolved"]) {
      mine.addEventListener(kind, ({ data }) => take(JSON.parse(data)));
    }
    // a stream that was refused is not asked for again: the ticket of a socket says whether one may follow at all
    mine.addEventListener("error", () => { mine.close(); again(opened ? stream : socket); });
  }

  function close() {
    closed = true;
    clearTimeout(timer);
    if (connection?.readyState) connection.close(); // one that is not yet open ends with the page
  }

  // a page that is kept for the way back must not hold a connection
  window.addEventListener("pagehide", close, { once: true });
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });
  socket();
  return { close };
}
