"use strict";
const board = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const defaults = {table: "", decoding: "sampled", sort: "-pass", q: "", model: "", algorithm: "", mark: "", entry: ""};
const statistics = {{ statistics|tojson }};
const marks = ["regenerated", "checked", "unverified", "published"];
let state = {...defaults}, later;

// An element; children that are text are only ever text.
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

const small = text => text ? el("small", {}, text) : null;
const fixed = (value, digits = 3) => value.toFixed(digits).replace("-", "\u2212");
const signed = value => (value > 0 ? "+" : "") + fixed(value);
const interval = (bounds, show = fixed) => `[${show(bounds[0])}, ${show(bounds[1])}]`;
const pValue = (p, name = "p") => p < 0.001 ? `${name} < 0.001` : `${name} = ${p.toFixed(3)}`;
const tableKey = table => [table.domain, table.suite, table.digest.slice(0, 8)].filter(Boolean).join(":");
const standing = entry => entry[state.decoding];
const spent = entry => entry.spent ?? {};

function duration(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (seconds >= size) return `${(seconds / size).toFixed(1)} ${unit}`;
  return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
}
function metric(value) {
  for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return (value / size).toPrecision(3) + unit;
  return String(value);
}
const bytes = value => value >= 2 ** 30 ? `${(value / 2 ** 30).toFixed(1)} GiB` : `${Math.round(value / 2 ** 20)} MiB`;
function seedsOf(entry) {
  if (entry.seeds.length) return String(entry.seeds.length);
  return entry.source === "published" && entry.trained_set !== "base" ? (entry.runs > 1 ? `${entry.runs} runs` : "single run") : "";
}
const seedNames = ({seeds}) => seeds.length === 1 ? `seed ${seeds[0]}\nitems only` : seeds.length <= 4 ? seeds.join(", ") : "";
function range({pass_rate, interval}) {
  const [low, high] = interval.map(bound => 100 * bound), bar = el("i"), dot = el("b");
  Object.assign(bar.style, {left: `${low}%`, width: `${high - low}%`});
  dot.style.left = `${100 * pass_rate}%`;
  return el("span", {class: "range", "aria-hidden": "true"}, bar, dot);
}
function difference(found) {
  if (!found) return [];
  return [signed(found.difference.difference), small(`${interval([found.difference.low, found.difference.high], signed)}\n${pValue(found.difference.p)}`)];
}
const correctedDifference = found => difference({difference: {...found.difference, p: found.p_holm}});
function share(found) {
  if (!found) return [];
  const figure = found.point === null ? "" : fixed(found.point, 2);
  if (found.interval === "unbounded") return [figure || "unbounded", small(figure && "unbounded")];
  const bounds = found.interval && interval(found.interval, bound => fixed(bound, 2));
  return figure ? [figure, small(bounds)] : [small(bounds)];
}

// Of a column: what it is called, what it sorts by (null comes last), and what it shows.
const columns = {
  rank: {title: "rank", value: entry => standing(entry).rank, cell: entry => [standing(entry).rank === null ? "\u2013" : String(standing(entry).rank)]},
  set: {title: "trained set", text: true, value: entry => entry.trained_set, cell: name},
  model: {title: "model", text: true, value: entry => entry.model || entry.source, cell: entry => [entry.model || entry.source]},
  algorithm: {title: "algorithm", text: true, value: entry => entry.algorithm, cell: entry => [entry.algorithm ?? ""]},
  seeds: {title: "seeds", value: entry => entry.seeds.length || null, cell: entry => [seedsOf(entry), small(seedNames(entry))]},
  pass: {title: "pass@1", value: entry => standing(entry).pass_rate, cell: entry => standing(entry).interval
    ? [fixed(standing(entry).pass_rate), small(interval(standing(entry).interval)), range(standing(entry))] : [fixed(standing(entry).pass_rate)]},
  base: {title: "minus base", value: entry => standing(entry).to_base?.difference.difference ?? null, cell: entry => difference(standing(entry).to_base)},
  full: {title: "minus full", value: entry => standing(entry).to_full?.difference.difference ?? null, cell: entry => difference(standing(entry).to_full)},
  share: {title: "C(k)", value: entry => standing(entry).contribution?.point ?? null, cell: entry => share(standing(entry).contribution)},
  parameters: {title: "trained parameters", value: entry => entry.parameters, cell: entry => entry.parameters === null ? []
    : [metric(entry.parameters), small(entry.total_parameters && `${(100 * entry.parameters / entry.total_parameters).toFixed(1)}%`)]},
  cost: {title: "cost", value: entry => spent(entry).seconds ?? null, cell: entry => entry.spent
    ? [duration(entry.spent.seconds), small(`${entry.spent.flops.toExponential(1).replace("+", "")} FLOPs`)] : []},
  memory: {title: "peak memory", value: entry => spent(entry).peak_gpu_memory ?? spent(entry).peak_memory ?? null, cell: entry => !entry.spent ? []
    : [bytes(entry.spent.peak_gpu_memory ?? entry.spent.peak_memory), small(entry.spent.peak_gpu_memory === null ? "" : "GPU")]},
  mark: {title: "mark", value: entry => marks.indexOf(entry.mark), cell: entry => [el("span", {class: `mark ${entry.mark}`}, entry.mark)]},
};
const ascending = new Set(["rank", "set", "model", "algorithm", "mark"]);  // what sorts so at the first click

// What tells entries of a table apart that are otherwise called the same; without it two rows would be equal.
const traits = {
  recipe: entry => entry.recipe, lr: entry => entry.lr, "trained on": entry => entry.trained_on, "trained parameters": entry => entry.parameters,
  "played by": entry => entry.source, base: entry => entry.base.slice(0, 8), protocol: entry => entry.protocol_sha256.slice(0, 8), runs: entry => entry.runs,
};
const called = entry => JSON.stringify([entry.trained_set, entry.model, entry.algorithm, entry.apart]);
const differs = new Map(board.tables.flatMap(({entries}) => entries.map(entry => {
  const alike = entries.filter(other => called(other) === called(entry));
  const found = Object.entries(traits).filter(([, trait]) => new Set(alike.map(trait)).size > 1);
  const text = other => found.map(([label, trait]) => `${label} ${trait(other) ?? "not known"}`).join(", ");
  const same = alike.length > 1 && alike.filter(other => text(other) === text(entry)).length > 1;
  return [entry, [text(entry), same && entry.directories[0]].filter(Boolean).join(", ")];
})));
const apart = entry => [entry.apart, differs.get(entry)].filter(Boolean).join("\n");

function name(entry) {
  const link = el("a", {href: fragment({...state, entry: entry.id === state.entry ? "" : entry.id}), "aria-expanded": String(entry.id === state.entry)});
  link.append(entry.trained_set);
  return [link, small(apart(entry))];
}

// The state that a link holds is all that differs from the defaults.
function fragment(of) {
  return "#" + new URLSearchParams(Object.entries(of).filter(([key, value]) => value !== defaults[key]));
}
function fromFragment() {
  const read = {...defaults};
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) if (key in defaults) read[key] = value;
  if (!["sampled", "greedy"].includes(read.decoding)) read.decoding = defaults.decoding;
  if (!Object.hasOwn(columns, read.sort.replace(/^-/, ""))) read.sort = defaults.sort;
  if (!board.tables.some(table => tableKey(table) === read.table)) {
    const holder = board.tables.find(table => table.entries.some(entry => entry.id === read.entry));
    read.table = holder ? tableKey(holder) : defaults.table;
  }
  return read;
}

function shown(table) {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const text = entry => [entry.trained_set, entry.apart, entry.model, entry.algorithm, entry.mark, entry.recipe, entry.source, entry.trained_on, ...entry.elsewhere.map(patch => patch.note)].join(" ").toLowerCase();
  const found = table.entries.filter(entry => standing(entry) && words.every(word => text(entry).includes(word))
    && ["model", "algorithm", "mark"].every(key => !state[key] || entry[key] === state[key]));
  const {value} = columns[state.sort.replace(/^-/, "")], sign = state.sort.startsWith("-") ? -1 : 1;
  const compare = (a, b) => typeof a === "string" ? a.localeCompare(b, "en", {numeric: true}) : a - b;
  return found.map(entry => [value(entry), entry]).sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b))
    .map(([, entry]) => entry);
}

function row(entry) {
  const cells = Object.entries(columns).map(([key, {title, text, cell}]) => key === "set" ? el("th", {scope: "row"}, ...cell(entry))
    : el("td", {"data-label": title, class: text ? "left" : undefined}, ...cell(entry)));
  return el("tr", {id: `entry-${entry.id}`, class: entry.mark === "published" ? "published" : undefined}, ...cells);
}

const told = (value, share) => value !== undefined && value !== null && (share ? `${fixed(100 * value, 1)}%` : fixed(value, 1));

// What an opened entry tells: label and text, where there is one.
function facts(entry) {
  const at = standing(entry), over = found => found && found.seeds < entry.runs ? ` (over ${found.seeds} of its ${entry.runs} seeds)` : "";
  const unlike = (other, names) => names.length && `none: ${other} was measured with different ${names.join(", ")}`;
  const tested = found => found && `smallest difference detectable with a power of 80%: ${fixed(found.difference.detectable)}; ${pValue(found.p_holm, "Holm p")}${over(found)}`;
  return Object.entries({
    "training seeds": entry.seeds.join(", "), "interval over": entry.interval_over,
    "pass@1 by seed": entry.seeds.length > 1 && at.by_seed.map((rate, number) => `${entry.seeds[number]}: ${fixed(rate)}`).join(", "),
    "minus base": tested(at.to_base) || unlike("the base", at.base_differs),
    "minus full": tested(at.to_full) || unlike("the full-parameter run", at.full_differs),
    ...Object.fromEntries(statistics.map(({name, label, share}) => [label, told(at.replies?.[name], share)])),
    "learning rate": entry.lr && String(entry.lr), "recipe": entry.recipe, "trained on": entry.trained_on,
    "trained elsewhere": entry.elsewhere.map(patch => [patch.model, patch.note].filter(Boolean).join(": ")).join("; "),
    "sampled in training": entry.spent && `${metric(Math.round(entry.spent.tokens))} tokens`,
    "processor time": entry.spent && duration(entry.spent.cpu_seconds), "GPU time": entry.spent?.gpu_seconds && duration(entry.spent.gpu_seconds),
    "samples of each item": entry.samples && `${entry.samples} at temperature ${entry.protocol.temperature}, and 1 greedy`,
    "most tokens of a reply": entry.protocol.max_tokens && String(entry.protocol.max_tokens), "prompt": entry.protocol.prompt,
    "evaluation seed": entry.protocol.seed !== undefined && String(entry.protocol.seed),
    "environment, agent and model": Object.entries(entry.protocol).filter(([key]) => key.includes(".")).map(([key, value]) => `${key} ${value}`).join(", "),
    "protocol SHA-256": entry.protocol_sha256,
    "base fingerprint": entry.base !== "none" && entry.base, "played by": entry.source, "evaluations": entry.directories.join("\n"),
  }).filter(([, text]) => text);
}

function openEntry() {
  document.querySelectorAll("tr.details").forEach(old => old.remove());
  document.querySelectorAll("tr.open").forEach(old => old.classList.remove("open"));
  const entry = current().entries.find(one => one.id === state.entry), at = entry && byId(`entry-${entry.id}`);
  for (const link of document.querySelectorAll("tbody th a")) {
    const id = link.closest("tr").id.slice("entry-".length);
    link.setAttribute("href", fragment({...state, entry: id === state.entry ? "" : id}));
    link.setAttribute("aria-expanded", String(id === state.entry));
  }
  if (!at) return;
  at.classList.add("open");
  const list = el("dl", {}, ...facts(entry).flatMap(([label, text]) => [el("dt", {}, label), el("dd", {}, text)]));
  at.after(el("tr", {class: "details"}, el("td", {colspan: Object.keys(columns).length}, list)));
}

const current = () => board.tables.find(table => tableKey(table) === state.table) ?? board.tables[0];
const measured = board.tables.filter(table => table.items);
const policy = entry => JSON.stringify([entry.model || entry.source, entry.algorithm ?? "", entry.trained_set]);

// Policies against all that was measured: what was trained on one domain stands beside what was trained on another. Nothing is chosen.
function overview() {
  const rows = new Map();
  for (const table of measured) for (const entry of table.entries.filter(one => one.mark !== "published" && standing(one)))
    rows.set(policy(entry), [...(rows.get(policy(entry)) ?? []), [table, entry]]);
  const link = (table, text, entry) => el("a", {href: fragment({...state, table: tableKey(table), entry: entry?.id ?? ""})}, text);
  const figure = (table, entry) => el("div", {}, link(table, fixed(standing(entry).pass_rate), entry), small(interval(standing(entry).interval)), small(apart(entry)));
  const head = measured.map(table => el("th", {scope: "col"}, link(table, table.domain), small(`${table.suite}\n${table.size}`)));
  byId("policies").tHead.rows[0].replaceChildren(...["trained set", "algorithm", "model"].map(title => el("th", {scope: "col", class: "left"}, title)), ...head);
  const order = text => text === "base" ? 0 : text === "full" ? 1 : 2, compare = (a, b) => a.localeCompare(b, "en", {numeric: true});
  const sorted = [...rows.entries()].map(([key, cells]) => [JSON.parse(key), cells])
    .sort(([a], [b]) => compare(a[0], b[0]) || compare(a[1], b[1]) || order(a[2]) - order(b[2]) || compare(a[2], b[2]));
  byId("policies").tBodies[0].replaceChildren(...sorted.map(([[model, algorithm, set], cells]) => el("tr", {}, el("th", {scope: "row"}, set),
    el("td", {class: "left", "data-label": "algorithm"}, algorithm), el("td", {class: "left", "data-label": "model"}, model), ...measured.map(table =>
      el("td", {"data-label": `${table.domain}: ${table.suite}`}, ...cells.filter(([other]) => other === table).map(([, entry]) => figure(table, entry)))))));
  algorithms();
}

// One algorithm against another, for each trained set, on all suites where two were compared.
function algorithms() {
  const tables = measured.filter(table => table.algorithms.some(standing)), pairs = new Map();
  for (const table of tables) for (const one of table.algorithms.filter(standing)) {
    const key = JSON.stringify([one.trained_set, `${one.algorithm} minus ${one.minus}`, one.model]);
    pairs.set(key, [...(pairs.get(key) ?? []), [table, standing(one)]]);
  }
  byId("algorithms").hidden = !pairs.size;
  const head = tables.map(table => el("th", {scope: "col"}, table.domain, small(`${table.suite}\n${table.size}`)));
  byId("pairs").tHead.rows[0].replaceChildren(...["trained set", "algorithms", "model"].map(title => el("th", {scope: "col", class: "left"}, title)), ...head);
  byId("pairs").tBodies[0].replaceChildren(...[...pairs].map(([key, cells]) => [JSON.parse(key), cells]).map(([[set, pair, model], cells]) => el("tr", {}, el("th", {scope: "row"}, set),
    el("td", {class: "left", "data-label": "algorithms"}, pair), el("td", {class: "left", "data-label": "model"}, model), ...tables.map(table =>
      el("td", {"data-label": `${table.domain}: ${table.suite}`}, ...cells.filter(([other]) => other === table).map(([, found]) => el("div", {}, ...correctedDifference(found))))))));
}

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, label]) => el("option", {value}, label)));
  select.value = chosen;
}

function render() {
  try { localStorage.setItem("onelayer.table", state.table); } catch { /* the browser keeps nothing for this page */ }
  byId("table").value = state.table;
  document.querySelector(`input[name=decoding][value=${state.decoding}]`).checked = true;
  byId("overview").hidden = state.table !== "";
  for (const part of document.querySelectorAll(".of-table")) part.hidden = state.table === "";
  if (state.table === "") return overview();
  const table = current(), rows = shown(table);
  if (byId("q").value !== state.q) byId("q").value = state.q;
  for (const key of ["model", "algorithm", "mark"]) {
    const there = [...new Set(table.entries.map(entry => entry[key]).filter(Boolean))].sort();
    options(byId(key), [["", "any"], ...there.map(value => [value, value])], state[key]);
  }
  byId("sort").value = state.sort;
  for (const [key, head] of Object.entries(heads)) {
    head.setAttribute("aria-sort", state.sort === key ? "ascending" : state.sort === `-${key}` ? "descending" : "none");
  }
  // The first rows at once, up to the entry that is open; the others after they have been painted.
  const body = document.querySelector("#entries tbody"), first = Math.max(100, 1 + rows.findIndex(entry => entry.id === state.entry));
  body.replaceChildren(...rows.slice(0, first).map(row));
  clearTimeout(later);
  const more = from => { if (from < rows.length) later = setTimeout(() => { body.append(...rows.slice(from, from + 100).map(row)); more(from + 100); }, 20); };
  more(first);
  byId("count").textContent = `${rows.length} of ${table.entries.length} entries` + (table.items ? ` on ${table.size}${Object.keys(table.averaged).length ? "," : " of"} ${table.suite}` : ", published figures only");
  openEntry();
}

function change(changes, how = "replaceState") {
  state = {...state, ...changes};
  history[how](null, "", fragment(state));
  render();
}

function follow() {
  const before = fragment({...state, entry: ""});
  state = fromFragment();
  if (fragment({...state, entry: ""}) === before && state.table) openEntry();
  else render();
  byId(`entry-${state.entry}`)?.scrollIntoView({block: "nearest"});
}

const heads = Object.fromEntries(Object.entries(columns).map(([key, {title, text}]) => {
  const button = el("button", {type: "button"}, title);
  button.addEventListener("click", () => {
    const first = ascending.has(key) ? key : `-${key}`, second = ascending.has(key) ? `-${key}` : key;
    change({sort: state.sort === first ? second : first});
  });
  return [key, el("th", {scope: "col", class: text ? "left" : undefined}, button)];
}));
document.querySelector("#entries thead tr").append(...Object.values(heads));
const groups = [...new Set(board.tables.map(table => table.domain))].map(domain => el("optgroup", {label: domain},
  ...board.tables.filter(table => table.domain === domain)
    .map(table => el("option", {value: tableKey(table)}, table.suite + (table.items ? `, ${table.size}` : " (published)")))));
byId("table").append(el("option", {value: ""}, "overview"), ...groups);
options(byId("sort"), Object.entries(columns).flatMap(([key, {title, text}]) => text ? [[key, `${title}, A to Z`]]
  : [[`-${key}`, `${title}, highest first`], [key, `${title}, lowest first`]]), state.sort);
byId("table").addEventListener("change", event => change({table: event.target.value, model: "", algorithm: "", mark: "", entry: ""}, "pushState"));
document.querySelectorAll("input[name=decoding]").forEach(radio => radio.addEventListener("change", () => change({decoding: radio.value})));
byId("q").addEventListener("input", event => change({q: event.target.value}));
for (const key of ["model", "algorithm", "mark", "sort"]) byId(key).addEventListener("change", event => change({[key]: event.target.value}));
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
state = fromFragment();
if (!location.hash) try { state = {...state, table: localStorage.getItem("onelayer.table") ?? ""}; } catch { /* it keeps nothing */ }
if (!measured.length && !state.table || state.table && !board.tables.some(table => tableKey(table) === state.table)) state.table = measured.length ? "" : tableKey(board.tables[0]);
render();
byId(`entry-${state.entry}`)?.scrollIntoView({block: "center"});
