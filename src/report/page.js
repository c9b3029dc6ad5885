"use strict";
const byId = (id) => document.getElementById(id);
const runs = JSON.parse(byId("data").textContent).runs;

// Tables: a click on a heading sorts, numbers largest first; what has no value stays last
for (const head of document.querySelectorAll("th")) {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const cells = [...body.rows].map((row) => row.cells[column]);
  const numeric = cells.some((cell) => cell.dataset.v !== undefined);
  if (numeric) head.classList.add("number");
  if (numeric) cells.forEach((cell) => cell.classList.add("number"));
  head.querySelector("button").addEventListener("click", () => {
    const was = head.getAttribute("aria-sort") ?? (numeric ? "ascending" : "descending");
    const order = was === "ascending" ? "descending" : "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => {
      const { v, t } = row.cells[column].dataset;
      if (numeric) return v === undefined ? null : Number(v);
      return t ?? row.cells[column].textContent;
    };
    const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    const rows = [...body.rows].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  });
}
byId("filter")?.addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase().split(/\s+/);
  for (const row of document.querySelectorAll("#runs tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
  }
});

// Curves
const DASHES = ["", "6 4", "2 3", "8 3 2 3"];
const NAMES = { miou: "mIoU", macc: "mean acc.", pixel_acc: "pixel acc.", fwiou: "fw IoU" };
const isShare = (key) => /^val\/(iou\/|miou$|macc$|pixel_acc$|fwiou$)/.test(key);
const title = (key) => (NAMES[key.slice(4)] ? `val ${NAMES[key.slice(4)]}` : key) + (isShare(key) ? ", percent" : "");
const hidden = new Set(runs.slice(12).map((run) => run.name));
let picked = null;

const format = (key, value) => {
  if (isShare(key)) return value.toFixed(2);
  return Math.abs(value) >= 0.01 || value === 0 ? String(+value.toPrecision(4)) : value.toExponential(2);
};

function points(run, key) {
  const [epochs, steps, values] = run.curves[key];
  const x = byId("axis").value === "epoch" ? epochs : steps;
  const wide = Number(byId("smooth").value), factor = isShare(key) ? 100 : 1;
  const found = [];
  values.forEach((value, i) => {
    if (value === null) return;
    let sum = 0, count = 0;
    for (let j = Math.max(0, i - wide); j <= Math.min(values.length - 1, i + wide); j++)
      if (values[j] !== null) (sum += values[j]), count++;
    found.push({ x: x[i], y: (factor * sum) / count, epoch: epochs[i], step: steps[i] });
  });
  return found;
}

// Points within an epoch share its number: spread them, so that no line stands upright
function spread(found) {
  const ends = new Map();
  for (const point of found) ends.set(point.epoch, point.step);
  let start = 0;
  const begins = new Map();
  for (const [epoch, end] of ends) begins.set(epoch, start), (start = end);
  return found.map((p) => {
    const begin = begins.get(p.epoch), length = ends.get(p.epoch) - begin;
    return { ...p, x: length > 0 ? p.epoch - 1 + (p.step - begin) / length : p.epoch };
  });
}

function ticks(low, high, wanted, whole = false) {
  const rough = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  if (whole) step = Math.max(1, step);
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step)
    found.push(+t.toPrecision(10));
  return found;
}

function draw() {
  const plot = byId("plot"), key = byId("key").value, overEpochs = byId("axis").value === "epoch";
  const lines = runs.filter((run) => run.curves[key] && !hidden.has(run.name)).map((run) => {
    const found = points(run, key);
    return { run, points: overEpochs ? spread(found) : found };
  });
  const all = lines.flatMap((line) => line.points);
  const width = Math.max(plot.clientWidth, 260), height = Math.round(Math.min(380, Math.max(250, width * 0.5)));
  const box = { left: 52, right: width - 20, top: 24, bottom: height - 36 };
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const p of all) {
    x0 = Math.min(x0, p.x), x1 = Math.max(x1, p.x), y0 = Math.min(y0, p.y), y1 = Math.max(y1, p.y);
  }
  if (!all.length) [x0, x1, y0, y1] = [0, 1, 0, 1];
  if (x0 === x1) (x0 -= 0.5), (x1 += 0.5);
  const air = (y1 - y0 || Math.abs(y1) || 1) * 0.05;
  (y0 = y0 >= 0 ? Math.max(0, y0 - air) : y0 - air), (y1 += air);
  const toX = (x) => box.left + ((x - x0) / (x1 - x0)) * (box.right - box.left);
  const toY = (y) => box.bottom - ((y - y0) / (y1 - y0)) * (box.bottom - box.top);
  let svg = `<text x="0" y="12">${escapeText(title(key))}</text>`;
  for (const t of ticks(y0, y1, 5)) {
    svg += `<line class="grid" x1="${box.left}" x2="${box.right}" y1="${toY(t)}" y2="${toY(t)}"/>`;
    svg += `<text x="${box.left - 8}" y="${toY(t) + 4}" text-anchor="end">${tickText(t)}</text>`;
  }
  for (const t of ticks(x0, x1, width / 110, true))
    svg += `<text x="${toX(t)}" y="${box.bottom + 18}" text-anchor="middle">${tickText(t)}</text>`;
  svg += `<text x="${box.right}" y="${height - 2}" text-anchor="end">${overEpochs ? "epoch" : "step"}</text>`;
  for (const { run, points } of lines) {
    const style = `stroke:var(--c${run.color});stroke-dasharray:${DASHES[run.dash] || "none"}`;
    const path = points.map((p) => `${toX(p.x).toFixed(1)},${toY(p.y).toFixed(1)}`).join(" ");
    const on = run.name === picked ? " on" : "";
    if (points.length > 1) svg += `<polyline class="line${on}" style="${style}" points="${path}"/>`;
    else if (points.length)
      svg += `<circle class="line${on}" style="fill:var(--c${run.color})" cx="${toX(points[0].x)}" cy="${toY(points[0].y)}" r="4"/>`;
  }
  svg += '<circle id="mark" r="5"/>';
  plot.innerHTML = `<svg viewBox="0 0 ${width} ${height}" height="${height}" role="img" aria-label="${escapeText(title(key))}">${svg}</svg>`;
  plot.classList.toggle("picked", picked !== null && lines.some((line) => line.run.name === picked));
  plot.onpointermove = (event) => hover(event, lines, toX, toY, key);
  plot.onpointerleave = () => pick(null);
  const last = new Map(lines.map((line) => [line.run.name, line.points.at(-1)]));
  for (const button of byId("legend").querySelectorAll("button")) {
    const end = last.get(button.dataset.run);
    button.querySelector("output").textContent = end ? format(key, end.y) : "–";
    button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.run)));
    button.classList.toggle("on", button.dataset.run === picked);
  }
}

const tickText = (t) => (t !== 0 && (Math.abs(t) < 0.001 || Math.abs(t) >= 1e6) ? t.toExponential(0) : String(t));
const escapeText = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function pick(name) {
  byId("tip").hidden = true;
  if (name === picked) return;
  picked = name;
  draw();
}

function hover(event, lines, toX, toY, key) {
  const area = byId("plot").getBoundingClientRect();
  const at = [event.clientX - area.left, event.clientY - area.top];
  let best = null;
  for (const line of lines)
    for (const p of line.points) {
      const away = Math.hypot(toX(p.x) - at[0], toY(p.y) - at[1]);
      if (!best || away < best.away) best = { away, line, p };
    }
  if (!best || best.away > 60) return pick(null);
  pick(best.line.run.name);
  const mark = byId("mark"), tip = byId("tip"), { p } = best;
  mark.classList.add("on");
  mark.setAttribute("cx", toX(p.x)), mark.setAttribute("cy", toY(p.y));
  tip.hidden = false;
  tip.textContent = `${best.line.run.short}\n${best.line.run.about}\n${format(key, p.y)} · epoch ${p.epoch}, step ${p.step}`;
  const left = area.left + scrollX + toX(p.x), room = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(8, Math.min(left + 12, room - tip.offsetWidth - 8))}px`;
  tip.style.top = `${area.top + scrollY + toY(p.y) - tip.offsetHeight - 10}px`;
}

if (byId("plot")) {
  const order = ["val/miou", "train/loss", "val/pixel_acc", "val/macc", "val/fwiou", "lr"];
  const rank = (key) => (order.includes(key) ? order.indexOf(key) : key.startsWith("val/iou/") ? 99 : 50);
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  keys.sort((a, b) => rank(a) - rank(b));
  for (const key of keys) byId("key").append(new Option(title(key).replace(", percent", ""), key));
  for (const run of runs) {
    const item = document.createElement("li"), button = document.createElement("button");
    const style = `stroke:var(--c${run.color});stroke-dasharray:${DASHES[run.dash] || "none"}`;
    button.dataset.run = run.name;
    button.innerHTML = `<svg viewBox="0 0 24 10"><line x1="0" x2="24" y1="5" y2="5" stroke-width="3" style="${style}"/></svg>`;
    const name = document.createElement("span"), about = document.createElement("small");
    name.textContent = run.short;
    about.textContent = run.about;
    name.append(about);
    button.append(name, document.createElement("output"));
    button.title = run.name;
    button.onclick = () => (hidden.delete(run.name) || hidden.add(run.name), draw());
    button.onpointerenter = () => pick(run.name);
    button.onpointerleave = () => pick(null);
    item.append(button);
    byId("legend").append(item);
  }
  for (const id of ["key", "axis", "smooth"]) byId(id).addEventListener("input", draw);
  byId("all").onclick = () => (hidden.clear(), draw());
  byId("none").onclick = () => (runs.forEach((run) => hidden.add(run.name)), draw());
  new ResizeObserver(draw).observe(byId("plot"));
}
