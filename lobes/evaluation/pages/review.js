"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const items = data.items;
const key = "lobes-review-folder-" + data.folder, former = "lobes-review-" + data.former;
const element = id => document.getElementById(id);
const cards = element("cards");
const audio = new Audio();
const STEP = 24;

// ---- marks: item id -> "right" or "wrong"
// The browser keeps, if it lets us, what was marked in this folder of recordings, on whatever page of it. An event whose
// ends another threshold has moved is the same: its intersection is at least half of the union.
let kept = read() || read(former) || {}, marks = {};
function read(name = key) {
  try { return JSON.parse(localStorage.getItem(name)); } catch (error) { return null; } // private window: for this visit
}
function keep() {
  try {
    localStorage.setItem(key, JSON.stringify(kept));
    localStorage.removeItem(former);
  } catch (error) { /* as above */ }
}
function likeness(one, item) {
  if (one.file !== item.file || one.label !== item.label) return 0;
  return (Math.min(one.end, item.end) - Math.max(one.start, item.start)) /
    (Math.max(one.end, item.end) - Math.min(one.start, item.start));
}
function placesOf(item) { // the likest last
  const like = id => id === item.id ? 2 : likeness(kept[id], item);
  return Object.keys(kept).filter(id => like(id) >= 0.5).sort((a, b) => like(a) - like(b));
}
function recall() {
  for (const item of items) // marks of before are verdicts alone
    if (typeof kept[item.id] === "string") kept[item.id] = entry(item, kept[item.id]);
  for (const item of items) {
    const place = placesOf(item).pop();
    if (place) marks[item.id] = kept[place].verdict;
  }
}
function entry(item, verdict) {
  return { verdict, file: item.file, label: item.label, start: item.start, end: item.end };
}
function write(item, verdict) {
  for (const id of placesOf(item)) delete kept[id];
  delete marks[item.id];
  if (verdict === null) return;
  marks[item.id] = verdict;
  kept[item.id] = entry(item, verdict);
}
function mark(item, verdict) {
  kept = read() || kept; // another page may have added to them
  write(item, marks[item.id] === verdict ? null : verdict);
  keep();
  dress(item);
  progress();
}

// ---- what is shown, in which order
let shown = [], drawn = 0, active = -1;
const uncertainty = item => Math.abs(item.score - item.threshold);
const ORDERS = {
  score: (a, b) => b.score - a.score,
  low: (a, b) => a.score - b.score,
  uncertain: (a, b) => uncertainty(a) - uncertainty(b),
  time: (a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.start - b.start),
};
const STATES = {
  "": () => true,
  detected: item => !item.near,
  near: item => item.near,
  open: item => !(item.id in marks),
  right: item => marks[item.id] === "right",
  wrong: item => marks[item.id] === "wrong",
};
function arrange() {
  const label = element("label").value, file = element("file").value, state = STATES[element("state").value];
  shown = items.filter(item => (!label || item.label === label) && (!file || item.file === file) && state(item));
  shown.sort((a, b) => ORDERS[element("sort").value](a, b) || ORDERS.time(a, b));
  cards.textContent = "";
  drawn = 0;
  active = -1;
  audio.pause();
  draw();
  progress();
}
function draw() {
  for (const item of shown.slice(drawn, drawn + STEP)) cards.append(card(item));
  drawn = Math.min(drawn + STEP, shown.length);
  element("more").textContent = shown.length ? "" : "Nothing to show here.";
}
function progress() {
  const found = items.filter(item => !item.near);
  const count = (list, verdict) => list.filter(item => marks[item.id] === verdict).length;
  const right = count(found, "right"), wrong = count(found, "wrong");
  const missed = count(items.filter(item => item.near), "right");
  let text = `${shown.length} of ${items.length} shown. ${right + wrong} of ${found.length} detections marked`;
  if (right + wrong) text += `: ${right} right, ${wrong} wrong, ${Math.round(100 * right / (right + wrong))} % right`;
  if (missed) text += `; ${missed} near misses marked right`;
  element("progress").textContent = text + ".";
}

// ---- one card
function make(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}
function clock(seconds) {
  const whole = Math.floor(seconds), two = value => String(value).padStart(2, "0");
  const tenths = Math.floor(10 * (seconds - whole) + 1e-6);
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}.${tenths}`;
}
function box(item, event, name) {
  const made = make("div", name), percent = value => 100 * Math.min(Math.max(value, 0), 1) + "%";
  const left = (event.start - item.from) / item.length, right = (event.end - item.from) / item.length;
  const low = event.low === null ? 0 : event.low / item.top, high = event.high === null ? 1 : event.high / item.top;
  made.style.left = percent(left);
  made.style.width = percent(Math.min(right, 1) - Math.max(left, 0));
  made.style.bottom = percent(low);
  made.style.height = percent(Math.min(high, 1) - low);
  if (right > 1.001) made.style.borderRight = "none"; // goes on after the picture
  return made;
}
function card(item) {
  const made = make("article"), picture = make("div", "picture"), text = make("div", "text");
  made.id = "item-" + item.id;
  if (item.picture) {
    const image = make("img");
    image.alt = `Spectrogram of ${item.label}, 0 to ${item.top} Hz`;
    image.src = data.picture + item.picture;
    const over = make("div", "over");
    for (const other of item.others) over.append(box(item, other, "box other"));
    over.append(box(item, item, "box"));
    const top = make("span", "tick", item.top >= 1000 ? `${item.top / 1000} kHz` : `${item.top} Hz`);
    const cut = item.end > item.from + item.length + 0.05 ? "first " : "";
    const bottom = make("span", "tick", `${cut}${item.length.toFixed(1)} s`);
    top.style.top = "0";
    bottom.style.bottom = "0";
    over.append(top, bottom, make("div", "head"));
    picture.append(image, over);
  } else {
    picture.append(make("p", "missing", item.problem));
  }
  const name = make("div", "name");
  name.append(make("span", "", item.label + (item.near ? " (near miss)" : "")));
  const score = make("span", "score", item.score.toFixed(2));
  score.title = `score; threshold ${item.threshold.toFixed(2)}`;
  name.append(score);
  const when = `${clock(item.start)}, ${(item.end - item.start).toFixed(1)} s` + (item.clock ? `; ${item.clock}` : "");
  const where = make("p", "quiet", item.file);
  where.append(make("br"), when);
  const buttons = make("div", "buttons"), play = make("button", "play", "Play");
  const yes = make("button", "yes", "Right"), no = make("button", "no", "Wrong");
  play.disabled = !item.audio;
  play.onclick = () => { activate(shown.indexOf(item), false); toggle(item); };
  yes.onclick = () => { activate(shown.indexOf(item), false); mark(item, "right"); };
  no.onclick = () => { activate(shown.indexOf(item), false); mark(item, "wrong"); };
  picture.onclick = play.onclick;
  for (const button of [play, yes, no]) button.type = "button";
  buttons.append(play, yes, no);
  text.append(name, where, buttons);
  made.append(picture, text);
  dress(item, made);
  return made;
}
function dress(item, made = element("item-" + item.id)) {
  if (!made) return;
  for (const verdict of ["right", "wrong"]) {
    const is = marks[item.id] === verdict;
    made.classList.toggle(verdict, is);
    made.querySelector(verdict === "right" ? ".yes" : ".no").setAttribute("aria-pressed", String(is));
  }
}

// ---- playing
let playing = null;
function toggle(item) {
  if (!item.audio) return;
  const same = playing === item && !audio.paused;
  stop();
  if (same) return;
  playing = item;
  audio.src = data.audio + item.audio;
  audio.play().catch(stop);
  element("item-" + item.id).querySelector(".play").textContent = "Stop";
  requestAnimationFrame(follow);
}
function stop() {
  audio.pause();
  const made = playing && element("item-" + playing.id);
  if (made) {
    made.querySelector(".play").textContent = "Play";
    if (made.querySelector(".head")) made.querySelector(".head").style.display = "none";
  }
  playing = null;
}
function follow() {
  const head = playing && element("item-" + playing.id)?.querySelector(".head");
  if (!head) return;
  head.style.display = "block";
  head.style.left = 100 * Math.min(audio.currentTime / data.slow / playing.length, 1) + "%";
  requestAnimationFrame(follow);
}
audio.onended = stop;

// ---- moving with the keyboard
function activate(number, scroll = true) {
  if (number < 0 || number >= shown.length) return;
  const before = shown[active] && element("item-" + shown[active].id);
  if (before) before.classList.remove("active");
  while (drawn <= number) draw();
  active = number;
  const made = element("item-" + shown[number].id);
  made.classList.add("active");
  if (scroll) made.scrollIntoView({ block: "nearest" });
}
const KEYS = {
  ArrowDown: () => activate(active + 1), j: () => activate(active + 1),
  ArrowUp: () => activate(Math.max(active - 1, 0)), k: () => activate(Math.max(active - 1, 0)),
  " ": () => active >= 0 && toggle(shown[active]),
  r: () => judge("right"), w: () => judge("wrong"),
  u: () => active >= 0 && mark(shown[active], null),
};
function judge(verdict) {
  if (active < 0) return;
  if (marks[shown[active].id] !== verdict) mark(shown[active], verdict);
  stop();
  activate(active + 1);
}
document.addEventListener("keydown", event => {
  const typing = /^(SELECT|INPUT|TEXTAREA)$/.test(event.target.tagName);
  const pressing = event.target.tagName === "BUTTON" && event.key === " ";
  if (typing || pressing || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

// ---- saving marks
function save(name, type, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const marked = () => items.filter(item => item.id in marks).sort(ORDERS.time);
function quoted(value) {
  const text = String(value);
  return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}
function asCsv() {
  const rows = [["file", "start", "end", "label", "score", "near_miss", "verdict"]];
  for (const item of marked())
    rows.push([item.file, item.start, item.end, item.label, item.score, item.near ? 1 : 0, marks[item.id]]);
  return rows.map(row => row.map(quoted).join(",")).join("\n") + "\n";
}
function asRaven() {
  const rows = [["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
    "Begin Path", "File Offset (s)", "Score", "Call type", "Verdict"]];
  marked().forEach((item, number) => rows.push([number + 1, "Spectrogram 1", item.channel + 1, item.begin.toFixed(6),
    (item.begin + item.end - item.start).toFixed(6), (item.low ?? 0).toFixed(1), (item.high ?? item.nyquist).toFixed(1),
    item.path, item.start.toFixed(6), item.score, item.label, marks[item.id]]));
  return rows.map(row => row.map(value => String(value).replace(/[\t\r\n]+/g, " ")).join("\t")).join("\n") + "\n";
}
element("csv").onclick = () => save("verdicts.csv", "text/csv", asCsv());
element("raven").onclick = () => save("verdicts.selections.txt", "text/plain", asRaven());
element("clear").onclick = () => {
  if (!Object.keys(marks).length || !confirm("Forget all marks on this page?")) return;
  kept = read() || kept;
  for (const item of items) write(item, null);
  keep();
  arrange();
};

// ---- begin
function fill(id, first, values) {
  for (const [value, text] of [["", first], ...values.map(value => [value, value])]) {
    const option = make("option", "", text);
    option.value = value;
    element(id).append(option);
  }
}
fill("label", "all", [...new Set(items.map(item => item.label))].sort());
fill("file", "all", [...new Set(items.map(item => item.file))].sort());
for (const id of ["sort", "label", "file", "state"]) element(id).onchange = arrange;
const watcher = new IntersectionObserver(seen => {
  if (!seen.some(entry => entry.isIntersecting) || drawn >= shown.length) return;
  draw();
  watcher.unobserve(element("more")); // looked at anew, it is told again if there is still room
  watcher.observe(element("more"));
}, { rootMargin: "1200px" });
watcher.observe(element("more"));
recall();
arrange();
