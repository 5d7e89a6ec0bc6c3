// The script of `onelayer view`: keeps pages up to date, follows links without losing the place, and hears keys.
// Text arrives in pages that the server has escaped; it is parsed as a document in which nothing runs, and its parts take the place of old ones.
"use strict";
const EVERY = 2000; // milliseconds between two looks for something new
const here = () => location.pathname + location.search;
const parts = page => [...page.querySelectorAll("[data-live]")];
const known = new Map(parts(document).map(part => [part.id, part.innerHTML]));
let wanted = here();
let asked = 0;

function say(text) {
  const status = document.getElementById("status");
  if (status.textContent !== text) status.textContent = text;
}

// What the reader is at work on stays: a chosen piece of text, an open list of choices.
function inUse(part) {
  const selection = getSelection();
  return (!selection.isCollapsed && part.contains(selection.anchorNode)) || (part.matches("select") && part === document.activeElement);
}

function replace(part, fresh) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const scrolled = [...part.querySelectorAll("[id], .scroll")].map(box => [box.id, box.scrollTop, box.scrollLeft]).filter(box => box[0] && (box[1] || box[2]));
  const chosen = part.matches("select") ? part.value : null;
  part.className = fresh.className;
  part.replaceChildren(...document.importNode(fresh, true).childNodes);
  if (chosen !== null) part.value = chosen;
  for (const [id, top, left] of scrolled) document.getElementById(id)?.scrollTo(left, top);
  if (!focused) return;
  const same = (focused.id && document.getElementById(focused.id)) || [...part.querySelectorAll("a")].find(link => link.rel && link.rel === focused.rel);
  same?.focus({preventScroll: true});
}

async function load(address, mine) {
  const response = await fetch(address, {headers: {accept: "text/html"}});
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (address !== wanted) return; // the reader has gone on
  const fresh = parts(page);
  if (mine && fresh.some(part => !document.getElementById(part.id))) return location.assign(address);
  if (!fresh.length) return say(page.querySelector(".lead")?.textContent ?? "not there");
  if (page.title) document.title = page.title;
  for (const part of fresh) {
    const old = document.getElementById(part.id);
    if (!old || known.get(part.id) === part.innerHTML || (!mine && inUse(old))) continue;
    replace(old, part);
    known.set(part.id, part.innerHTML);
  }
  say("");
}

async function go(address, how = "pushState") {
  wanted = address;
  if (how) history[how](null, "", address);
  const number = ++asked;
  await load(address, true).catch(() => location.assign(address));
  if (number === asked) document.querySelector("#rows [aria-current]")?.scrollIntoView({block: "nearest"});
}

async function look() {
  if (!document.hidden) await load(wanted, false).catch(() => say("no connection; trying again"));
  setTimeout(look, EVERY);
}
setTimeout(look, EVERY);

document.addEventListener("click", event => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href")).then(() => { if (matchMedia("(max-width: 56rem)").matches) scrollTo(0, 0); });
});

addEventListener("popstate", () => here() === wanted || location.reload());

function send(form, how) {
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  go(`${form.getAttribute("action")}?${query}`, how);
}

let typed;
for (const form of document.querySelectorAll("form[data-swap]")) {
  form.addEventListener("submit", event => { event.preventDefault(); send(form); });
  form.addEventListener("change", event => { if (event.target.type !== "search") send(form); });
  form.addEventListener("input", event => {
    clearTimeout(typed);
    if (event.target.type === "search") typed = setTimeout(() => send(form, "replaceState"), 300);
  });
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.matches("input")) target.focus();
  else target.click();
});
