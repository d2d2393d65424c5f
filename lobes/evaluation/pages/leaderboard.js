"use strict";
// ---- what there is
const board = JSON.parse(document.getElementById("data").textContent);
const element = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "path", "circle", "text"].includes(tag);
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter(child => child !== null && child !== undefined).map(child =>
    child instanceof Node ? child : String(child)));
  return made;
}
const known = value => value !== null && value !== undefined && value !== "";
const unique = values => [...new Set(values.filter(known))];

// ---- figures as people read them
function digits(value, count = 3) {
  const rounded = Number(value.toPrecision(count));
  return Math.abs(rounded) >= 1e-4 || rounded === 0 ? String(rounded) : value.toExponential(1);
}
const figure = (row, value) => row.published ? digits((row.percent ? 100 : 1) * value, 4) // as it was printed
  : row.percent ? (100 * value).toFixed(1) : digits(value);
function amount(value) {
  for (const [factor, prefix] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]])
    if (Math.abs(value) >= 0.9995 * factor) return digits(value / factor) + prefix;
  return digits(value);
}
const pText = value => value < 0.001 ? "< 0.001" : value.toFixed(3);
const signed = (row, value) => (value > 0 ? "+" : "") + figure(row, value).replace("-", "−");

// ---- columns
const COLUMNS = [
  { key: "model", title: "Model", text: true },
  { key: "task", title: "Task", text: true },
  { key: "mode", title: "Mode", text: true },
  { key: "head", title: "Head", text: true },
  { key: "value", title: "Result [95 %]" },
  { key: "p_best", title: "p", show: row => row.best ? "best" : known(row.p_best) ? pText(row.p_best) : "" },
  { key: "seeds", title: "Seeds", show: row => row.seeds ?? "" },
  { key: "parameters_trained", title: "Trained", show: row => cost(row, "parameters_trained") },
  { key: "parameters_total", title: "Total", show: row => cost(row, "parameters_total") },
  { key: "macs_per_second", title: "MACs/s", show: row => cost(row, "macs_per_second") },
  { key: "audio_hours", title: "Audio, h", show: row => cost(row, "audio_hours") },
  { key: "wall_hours", title: "Hours", show: row => cost(row, "wall_hours") },
  { key: "all_hours", title: "All, h", show: row => cost(row, "all_hours") },
  { key: "kwh", title: "kWh", show: row => cost(row, "kwh") },
];
const COSTS = {
  macs_per_second: "MACs per second of audio", parameters_total: "parameters", parameters_trained: "parameters trained",
  wall_hours: "hours of a run", kwh: "kWh of a run",
};
const cost = (row, key) => known(row[key]) ? amount(row[key]) : "";
const ours = board.rows.filter(row => !row.published);
// A column that says the same of all, or nothing, is left out.
const used = COLUMNS.filter(column => ["model", "value", "task"].includes(column.key)
  || (column.text ? unique(ours.map(row => row[column.key])).length > 1
    : ours.some(row => column.show(row) !== "" && (column.key !== "audio_hours" || row.audio_hours > 0))));

// ---- filters and order
let order = { key: "value", up: false };
const MODES = unique(ours.map(row => row.mode));
function fill(id, values, first) {
  if (first) element(id).append(make("option", { value: "" }, first));
  for (const [value, text] of values) element(id).append(make("option", { value }, text));
}
const same = values => values.map(value => [value, value]);
fill("task", same(unique(board.rows.map(row => row.task))), "all");
fill("mode", same(unique(board.rows.map(row => row.mode))), "all");
fill("head", same(unique(board.rows.map(row => row.head))), "all");
fill("sort", used.map(column => [column.key, column.title.replace(" [95 %]", "")]));
fill("cost", Object.entries(COSTS).filter(([key]) => ours.some(row => row[key] > 0)));
if (ours.length) element("task").value = ours[0].task;
element("sort").value = order.key;

function shown() {
  const wanted = element("model").value.trim().toLowerCase();
  return board.rows.filter(row =>
    ["task", "mode", "head"].every(key => !element(key).value || row[key] === element(key).value
      // Published rows may leave mode and head open: they are not left out for that.
      || (row.published && key !== "task" && !row[key]))
    && row.model.toLowerCase().includes(wanted) && (!row.published || element("showPublished").checked));
}
// Of the result the best comes first, whichever way its metric goes; what is not known comes last, always.
function compare(a, b) {
  const key = order.key, [x, y] = [a[key], b[key]];
  if (known(x) !== known(y)) return known(x) ? -1 : 1;
  if (!known(x)) return 0;
  if (key !== "value") return (typeof x === "string" ? x.localeCompare(y) : x - y) * (order.up ? 1 : -1);
  const tasks = unique(board.rows.map(row => row.task));
  return tasks.indexOf(a.task) - tasks.indexOf(b.task) || (x - y) * (a.higher_is_better === order.up ? 1 : -1);
}
function sortBy(key, up) {
  order = { key, up: up ?? !["value", "p_best", "seeds"].includes(key) };
  element("sort").value = key;
  draw();
}

// ---- the table
function scales(rows) {
  const found = {};
  for (const row of rows) {
    const values = [row.low, row.value, row.high].filter(known);
    const [low, high] = found[row.task] ?? [Infinity, -Infinity];
    found[row.task] = [Math.min(low, ...values), Math.max(high, ...values)];
  }
  return found;
}
function bar(value, low, high, [from, to]) {
  const place = x => 2 + 96 * (to > from ? (x - from) / (to - from) : 0.5);
  const made = make("div", { class: "bar", "aria-hidden": "true" });
  if (known(low)) {
    const style = `left: ${place(low)}%; width: ${Math.max(place(high) - place(low), 0.4)}%`;
    made.append(make("i", { style }));
  }
  made.append(make("s", { style: `left: ${place(value)}%` }));
  return made;
}
function result(row, scale) {
  const deviation = row.published && known(row.seed_deviation) ? ` ± ${figure(row, row.seed_deviation)}` : "";
  const range = known(row.low) ? ` [${figure(row, row.low)}, ${figure(row, row.high)}]` : deviation;
  const text = make("span", {}, make("b", {}, figure(row, row.value)), make("span", { class: "range" }, range),
    element("task").value ? null : make("span", { class: "range" }, " " + row.unit));
  const title = row.published ? row.source : row.method;
  return make("td", { class: "result text", "data-label": "Result", title },
    make("div", { class: "figure" }, text, bar(row.value, row.low, row.high, scale)));
}
function head(columns) {
  const cells = columns.map(column => {
    const button = make("button", { type: "button" }, column.title);
    button.onclick = () => sortBy(column.key, order.key === column.key ? !order.up : undefined);
    const cell = make("th", { scope: "col", class: column.text || column.key === "value" ? "text" : "" }, button);
    if (order.key === column.key) cell.setAttribute("aria-sort", order.up ? "ascending" : "descending");
    return cell;
  });
  const focused = [...element("results").querySelectorAll("thead button")].indexOf(document.activeElement);
  element("results").tHead.replaceChildren(make("tr", {}, ...cells));
  if (focused >= 0) cells[Math.min(focused, cells.length - 1)].firstChild.focus();
}
// Columns of text that are the same in all rows stand below the table instead.
const alike = (rows, key) => ["task", "mode", "head"].includes(key) && unique(rows.map(row => row[key])).length < 2;
function drawTable(rows) {
  const columns = used.filter(column => !alike(rows, column.key));
  head(columns);
  const scale = scales(rows), task = element("task").value;
  element("results").tBodies[0].replaceChildren(...rows.map(row => make("tr", row.published ? { class: "published" } : {},
    ...columns.map(column => {
      if (column.key === "value") return result(row, scale[row.task]);
      if (column.key !== "model") {
        const text = column.show ? column.show(row) : row[column.key] ?? "";
        return make("td", { class: column.text ? "text" : "", "data-label": column.title }, ...(text === "" ? [] : [text]));
      }
      const badges = [row.published && "published", row.generated && "generated speech"].filter(Boolean);
      const source = row.published ? make("div", { class: "quiet" }, row.source) : null;
      return make("th", { scope: "row" }, row.model, ...badges.map(text => make("span", { class: "badge" }, text)), source);
    }))));
  if (!rows.length)
    element("results").tBodies[0].append(make("tr", {}, make("td", { class: "text empty", colspan: 20 }, "Nothing to show.")));
  const first = rows.find(row => row.task === task);
  const common = ["mode", "head"].filter(key => alike(rows, key)).map(key => first?.[key]).filter(name => name && name !== "default");
  element("scale").textContent = first ? `${[first.unit, ...common].join(", ")}: ${first.higher_is_better ? "higher" : "lower"} is better. ` +
    `The bars run from ${figure(first, scale[task][0])} to ${figure(first, scale[task][1])}.` : "Each task's bars have a scale of their own.";
  element("generated").hidden = !rows.some(row => row.generated);
  element("publishedNote").hidden = !rows.some(row => row.published);
}

// ---- quality against cost
function dominates(a, b, key) {
  const better = a.higher_is_better ? a.value - b.value : b.value - a.value;
  return better >= 0 && a[key] <= b[key] && (better > 0 || a[key] < b[key]);
}
const front = (rows, key) => rows.filter(row => !rows.some(other => dominates(other, row, key)));
function ticks(from, to, log) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++)
      for (const step of Math.log10(to / from) > 2 ? [1] : [1, 2, 5]) found.push(step * 10 ** power);
    return found.filter(value => value >= from && value <= to);
  }
  const rough = (to - from) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough);
  const found = [];
  for (let value = Math.ceil(from / step) * step; value <= to + 1e-9; value += step) found.push(value);
  return found;
}
const pointText = (row, key) => [row.model, ...[row.mode, row.head].filter(name => name && name !== "default")].join(", ") +
  `: ${figure(row, row.value)} [${figure(row, row.low)}, ${figure(row, row.high)}] ${row.unit}, ` +
  `${amount(row[key])} ${COSTS[key]}`;
function drawPlot(rows) {
  const key = element("cost").value, task = element("task").value, plot = element("plot");
  const points = rows.filter(row => !row.published && row[key] > 0);
  element("point").textContent = "";
  if (!task || !key || !points.length) {
    plot.replaceChildren(make("p", { class: "empty" }, !task ? "Choose a task to see its plot."
      : "No cost was measured for what is shown."));
    return;
  }
  const width = Math.max(280, Math.min(plot.clientWidth, 900)), height = Math.round(Math.max(260, 0.5 * width));
  const left = 48, right = 14, top = 26, bottom = 44, up = points[0].higher_is_better;
  const values = points.flatMap(row => [row.low, row.value, row.high]);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = 0.05 * (high - low) || 0.01;
  [low, high] = [low - margin, high + margin];
  const costs = points.map(row => row[key]), [cheap, dear] = [Math.min(...costs) / 1.3, Math.max(...costs) * 1.3];
  const x = value => left + (width - left - right) * Math.log(value / cheap) / Math.log(dear / cheap);
  const y = value => top + (height - top - bottom) * ((value - low) / (high - low) * (up ? -1 : 1) + (up ? 1 : 0));
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label":
    `${points[0].unit} against ${COSTS[key]}; the better, the higher` });
  for (const value of ticks(low, high)) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    const text = points[0].percent ? digits(100 * value) : digits(value);
    svg.append(make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  for (const value of ticks(cheap, dear, true))
    svg.append(make("text", { x: x(value), y: height - bottom + 18, "text-anchor": "middle" }, amount(value)),
      make("line", { class: "grid", x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 4 }));
  svg.append(make("text", { x: 2, y: 14 }, `${points[0].unit} ${up ? "↑" : "↓"}, the better the higher`),
    make("text", { x: width - right, y: height - 6, "text-anchor": "end" }, COSTS[key] + ", log scale"));
  const best = front(points, key).sort((a, b) => a[key] - b[key]);
  svg.append(make("path", { class: "front", d: best.map((row, i) =>
    i ? `H ${x(row[key])} V ${y(row.value)}` : `M ${x(row[key])} ${y(row.value)}`).join(" ") }));
  const taken = [];
  for (const row of [...best, ...points.filter(row => !best.includes(row))]) svg.append(mark(row, key, x, y, best, width, taken));
  const legend = make("ul", { class: "legend" }, ...(MODES.length > 1 ? MODES.filter(mode => points.some(row => row.mode === mode)) : [])
    .map(mode => make("li", {}, make("i", { style: `background: var(--c${MODES.indexOf(mode) % 6})` }), mode)));
  plot.replaceChildren(svg, legend);
  element("point").textContent = "Dashed: the systems that no other beats in both. Point at one, or press Tab, to read it.";
}
function mark(row, key, x, y, best, width, taken) {
  const [cx, cy] = [x(row[key]), y(row.value)], colour = `var(--c${Math.max(MODES.indexOf(row.mode), 0) % 6})`;
  const made = make("g", { class: "mark", tabindex: 0, role: "img", "aria-label": pointText(row, key) },
    make("line", { x1: cx, x2: cx, y1: y(row.low), y2: y(row.high), stroke: colour, "stroke-opacity": 0.5, "stroke-width": 2 }),
    make("circle", { cx, cy, r: 12, fill: "transparent" }),
    make("circle", { cx, cy, r: best.includes(row) ? 6 : 4.5, fill: colour }));
  made.onmouseenter = made.onfocus = made.onclick = () => { element("point").textContent = pointText(row, key); };
  const text = row.model.length > 28 ? row.model.slice(0, 27) + "…" : row.model, size = 6.6 * text.length;
  const right = cx + 10 + size < width;
  const box = [right ? cx + 10 : cx - 10 - size, cy - 13];
  if (box[0] < 40 || taken.some(other => box[0] < other[0] + other[2] && other[0] < box[0] + size && Math.abs(box[1] - other[1]) < 14))
    return made; // its name would lie on another's
  taken.push([...box, size]);
  made.append(make("text", { class: "label", x: right ? cx + 10 : cx - 10, y: cy - 3, "text-anchor": right ? "start" : "end" }, text));
  return made;
}

// ---- over tasks, and the rest
function simple(id, titles, rows) {
  element(id).tHead.replaceChildren(make("tr", {}, ...titles.map(([text, isText]) =>
    make("th", { scope: "col", class: isText ? "text" : "" }, text))));
  element(id).tBodies[0].replaceChildren(...rows.map(cells => make("tr", {}, ...cells.map((cell, i) =>
    make("td", { class: titles[i][1] ? "text" : "" }, cell ?? "")))));
}
function drawRanks() {
  const wanted = element("mode").value, found = board.ranks.filter(rank =>
    wanted ? rank.mode === wanted : rank.systems.length);
  element("ranks").replaceChildren(...found.flatMap(rank => {
    const scale = [1, Math.max(2, rank.systems.length)], test = rank.friedman;
    const lines = rank.systems.flatMap(system => [make("span", {}, system.model),
      make("span", {}, `${system.rank.toFixed(2)} [${system.low.toFixed(2)}, ${system.high.toFixed(2)}]`),
      bar(system.rank, system.low, system.high, scale)]);
    const left = Object.entries(rank.left_out).map(([model, lacks]) => `${model} is left out: it lacks ${lacks.join(", ")}.`);
    const text = `1 is best, over ${rank.tasks.join(", ")}. Intervals are over test items and seeds.` + (test
      ? ` Friedman over tasks: ${test.statistic.toFixed(2)}, p ${pText(test.p)}; mean ranks differ by Nemenyi's test when ` +
        `${rank.critical_difference.toFixed(2)} apart.` : "");
    return [make("h3", {}, rank.mode === "default" ? "All" : rank.mode), make("div", { class: "ranked" }, ...lines),
      make("p", { class: "quiet" }, [rank.systems.length ? text : "Fewer than two models have all tasks.", ...left].join(" "))];
  }));
}
function drawRest() {
  const inside = row => ["task", "mode", "head"].every(key => !element(key).value || row[key] === element(key).value);
  const pairs = board.pairs.filter(inside);
  simple("pairs", [["Task", 1], ["Mode", 1], ["Head", 1], ["A", 1], ["B", 1], ["A − B [95 %]"], ["p"], ["p, Holm"], ["McNemar or MAPSSWE"]],
    pairs.map(row => [row.task, row.mode, row.head, row.a, row.b,
      `${signed(row, row.difference)} [${signed(row, row.low)}, ${signed(row, row.high)}]`, pText(row.p), pText(row.p_holm),
      known(row.mcnemar) ? pText(row.mcnemar) : known(row.mapsswe) ? pText(row.mapsswe) : ""]));
  element("pairsSection").hidden = !pairs.length;
  const taus = board.taus.filter(row => ["task", "mode"].every(key => !element(key).value || row[key] === element(key).value));
  simple("taus", [["Task", 1], ["Mode", 1], ["Head", 1], ["Other head", 1], ["Models"], ["tau-b [95 %]"]], taus.map(row =>
    [row.task, row.mode, row.head, row.other, row.models, known(row.tau) ? row.tau.toFixed(2) +
      (known(row.low) ? ` [${row.low.toFixed(2)}, ${row.high.toFixed(2)}]` : "") : "undefined"]));
  element("tausSection").hidden = !taus.length;
}
function draw() {
  const rows = shown().sort(compare);
  const published = rows.filter(row => row.published).length;
  element("counts").textContent = `${rows.length - published} of ${ours.length} results` +
    (published ? `, and ${published} published figures.` : ".");
  drawTable(rows);
  drawPlot(rows);
  drawRanks();
  drawRest();
}

// ---- begin
for (const id of ["task", "mode", "head", "showPublished", "cost"]) element(id).onchange = draw;
element("model").oninput = draw;
element("sort").onchange = () => sortBy(element("sort").value);
for (const id of ["mode", "head"])
  if (unique(board.rows.map(row => row[id])).length < 2) element(id).parentElement.hidden = true;
simple("failed", [["Task", 1], ["Model", 1], ["Mode", 1], ["Head", 1], ["Seed"], ["Learning rate"], ["Error", 1]],
  (board.failed ?? []).map(row => [row.task, row.model, row.mode, row.head, row.seed, row.rate, row.error]));
element("failedSection").hidden = !(board.failed ?? []).length;
element("ranksSection").hidden = !board.ranks.some(rank => rank.systems.length);
element("notes").replaceChildren(...board.notes.map(note => make("li", {}, note)));
let drawnAt = innerWidth;
addEventListener("resize", () => { if (innerWidth !== drawnAt) { drawnAt = innerWidth; drawPlot(shown()); } });
draw();
