// Follows the stream of events: over a WebSocket, or by Server-Sent Events where that does not get through. What was
// seen last is remembered, so a connection that breaks goes on where it ended.
const RETRIES = [1000, 2000, 5000, 10_000, 30_000];
const REFUSED = new Set([4400, 4401, 4403, 4429]);

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
    connection = new WebSocket(`${scheme}//${window.location.host}/ws/events`);
    connection.addEventListener("open", () => connection.send(JSON.stringify({ type: "authenticate", ticket })));
    connection.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "authenticated") {
        greeted = true;
        connection.send(JSON.stringify({ type: "subscribe", kinds, tasks, ...(last === null ? {} : { since: last }) }));
      } else if (message.type === "subscribed") {
        failures = 0;
        if (last === null) last = message.newest;
        onState(true);
      } else if (message.type === "event") {
        take(message);
      }
    });
    connection.addEventListener("close", ({ code }) => {
      if (closed) return;
      if (REFUSED.has(code)) { onState(false); return; }
      // a proxy that knows no WebSockets: the second way
      again(greeted || failures < 2 ? socket : stream);
    });
  }

  function stream() {
    if (closed) return;
    const query = new URLSearchParams(kinds.map((kind) => ["kind", kind]));
    if (tasks.length === 1) query.set("task_id", tasks[0]);
    if (last !== null) query.set("since", last);
    connection = new EventSource(`/api/events/stream?${query}`);
    connection.addEventListener("open", () => { failures = 0; onState(true); });
    for (const kind of ["task.state", "task.progress", "publication", "alert", "alert.resolved"]) {
      connection.addEventListener(kind, ({ data }) => take(JSON.parse(data)));
    }
    connection.addEventListener("error", () => { connection.close(); again(stream); });
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
