// What every page does: the menu of small screens, questions before something final, and word of new events.
import { follow } from "./events.js";
import { toast } from "./toasts.js";

document.documentElement.classList.add("scripted");

const menu = document.querySelector(".menu");
menu?.addEventListener("click", () => {
  const open = document.getElementById("side").classList.toggle("open");
  menu.setAttribute("aria-expanded", String(open));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && menu?.getAttribute("aria-expanded") === "true") { menu.click(); menu.focus(); }
});

// A form that is final says what it does in data-confirm; a dialog asks first.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.confirm || form.dataset.confirmed) return;
  event.preventDefault();
  ask(form.dataset.confirm, event.submitter?.textContent.trim() || "Go on").then((yes) => {
    if (!yes) return;
    form.dataset.confirmed = "yes";
    form.requestSubmit(event.submitter);
  });
});

function ask(question, label) {
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  text.id = "question";
  text.textContent = question;
  dialog.setAttribute("aria-labelledby", "question");
  const actions = document.createElement("form");
  actions.method = "dialog";
  actions.className = "actions";
  for (const [value, words, look] of [["no", "Keep as it is", ""], ["yes", label, "primary"]]) {
    const button = document.createElement("button");
    button.value = value; button.textContent = words; button.className = look;
    actions.append(button);
  }
  dialog.append(text, actions);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((answer) => dialog.addEventListener("close", () => {
    answer(dialog.returnValue === "yes");
    dialog.remove();
  }));
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

// Scripts would lose what somebody types when pages reloaded by themselves: news are told, the link opens them.
function tell() {
  follow({ kinds: ["publication", "alert", "alert.resolved"] }, (event) => {
    const data = event.data ?? {};
    if (event.kind === "publication") {
      toast(`New predictions for ${data.session ?? "the newest session"}`, { href: "/", label: "Show" });
    } else if (event.kind === "alert") {
      toast(data.title ?? "A new alert", { href: "/alerts", label: "Alerts", tone: event.severity === "critical" ? "bad" : "warn" });
    } else {
      toast(data.title ?? "An alert is over", { href: "/alerts", label: "Alerts" });
    }
  });
}

// A page that is only passed through needs no connection.
if (document.body.dataset.events === "on" && !document.querySelector("[data-live]")) setTimeout(tell, 1000);
