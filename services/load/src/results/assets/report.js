"use strict";
// All text that comes from the run is set as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const run = data.result;
const page = document.getElementById("page");

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "style") Object.assign(made.style, value);
    else if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

const known = value => value !== null && value !== undefined;
const grouped = number => Math.round(number).toString().replace(/\B(?=(\d{3})+(?!\d))/g, " ");
function millis(ms) {
  if (!known(ms)) return "–";
  if (ms >= 1000) return grouped(ms);
  return ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms >= 1 ? ms.toFixed(2) : ms.toFixed(3);
}
const seconds = at => known(at) ? at.toFixed(2) + " s" : "–";
const short = target => target.replace(/^[a-z]+:\/\//, "");
const clock = ms => new Date(ms).toISOString().replace("T", " ").slice(0, 19) + " UTC";

function section(title, ...children) {
  page.append(element("h2", {}, title), ...children);
}

function table(heads, rows, texts = [0]) {
  const cell = (kind, content, column) => {
    const kinds = [texts.includes(column) ? "text" : "", typeof content === "string" && content.length > 40 ? "wide" : ""];
    return element(kind, { class: kinds.join(" ").trim() }, content);
  };
  const line = (kind, cells) => element("tr", {}, ...cells.map((content, column) => cell(kind, content, column)));
  const body = rows.map(row => line("td", row));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, line("th", heads)), element("tbody", {}, ...body)));
}

function verdict() {
  const code = run.verdict.exit_code;
  const [word, mood] = code === 0 ? ["PASS", "good"] : code === 1 ? ["FAIL", "bad"] : ["INVALID", "doubt"];
  page.append(
    element("h1", {}, "Mesh Bench run " + run.run_id),
    element("p", { class: "quiet" }, `${clock(run.began_unix_ms)} · ${run.setup.targets.map(short).join(" · ")}`),
    element("p", { class: "verdict " + mood }, `${word} (exit code ${code})`),
  );
  if (run.interrupted) page.append(element("p", { class: "doubt" }, "interrupted by a signal"));
  const reasons = [];
  for (const [name, value] of Object.entries(run.verdict)) {
    if (typeof value === "string") reasons.push(element("li", {}, element("b", {}, name + ": "), value));
    if (Array.isArray(value)) for (const reason of value) reasons.push(element("li", {}, element("b", {}, name + ": "), String(reason)));
  }
  if (reasons.length) page.append(element("ul", { class: "reasons" }, ...reasons));
  const row = (label, field) => (run.rows.find(row => row.table === "all" && row.label === label) || {})[field];
  const figures = [
    ["operations per second", grouped(run.totals.ops_per_s)],
    ["operations", grouped(run.totals.total)],
    ["errors", grouped(run.totals.errors)],
    ["outcome unknown", grouped(run.totals.indeterminate)],
    [run.sweep ? `lost writes, of ${grouped(run.sweep.keys)} keys` : "lost writes: no final sweep", run.sweep ? grouped(run.sweep.lost) : "–"],
    ["GET p50 · p99, ms", `${millis(row("GET", "p50_ms"))} · ${millis(row("GET", "p99_ms"))}`],
    ["SET p50 · p99, ms", `${millis(row("SET", "p50_ms"))} · ${millis(row("SET", "p99_ms"))}`],
    ["load, seconds", run.load_s.toFixed(1)],
  ];
  page.append(element("div", { class: "figures" }, ...figures.map(([name, value]) =>
    element("div", { class: "figure" }, element("b", {}, value), element("span", {}, name)))));
}

// Charts are made anew when their width or the colours change.
const charts = [];
function chart(title, draw) {
  const place = element("div", { class: "chart" }, element("h3", {}, title));
  charts.push({ place, draw, drawn: null });
  return place;
}
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function drawAll() {
  for (const one of charts) {
    if (one.drawn) one.drawn.remove();
    one.drawn = element("div");
    one.place.append(one.drawn);
    const width = Math.max(280, one.place.clientWidth || 700);
    one.draw(one.drawn, width);
  }
}

const observed = run.observed || [];
const spans = run.faults.filter(fault => known(fault.begun_at_s)).map(fault =>
  [fault.begun_at_s, fault.recovered_at_s ?? fault.ended_at_s ?? run.load_s, fault.ended_at_s ?? run.load_s, fault.kind])
  .concat(observed.map(event => [event.at_s, event.at_s, event.at_s, event.kind]));

function shade(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = colour("--fault");
  for (const [from, recovered, ended] of spans) {
    for (const to of [recovered, ended]) {
      const [left, right] = [from, to].map(at => plot.valToPos(at, "x", true));
      ctx.fillRect(left, bbox.top, Math.max(1, right - left), bbox.height);
    }
  }
  ctx.restore();
}

function axes(formatX, formatY) {
  const common = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  return [
    { ...common, values: formatX, space: 55 },
    { ...common, values: formatY, size: 62 },
  ];
}
const plain = (_, values) => values.map(value => known(value) ? grouped(value) : "");
const logged = format => (_, values) => values.map(value =>
  known(value) && value > 0 && Math.abs(Math.log10(value) % 1) < 1e-9 ? format(value) : "");

function overTime(place, width, lines, isLog, unit) {
  const series = lines.map(({ name, values, colour: which, width: thick, dash }) => ({
    label: name, stroke: colour(which), width: thick || 1.5, dash, points: { show: false }, spanGaps: false,
    value: (_, value) => known(value) ? (isLog ? millis(value) : grouped(value)) + " " + unit : "–",
  }));
  const options = {
    width, height: 230, hooks: { drawClear: [shade] },
    scales: { x: { time: false, range: (_, __, max) => [0, max] }, y: isLog ? { distr: 3 } : { range: (_, __, max) => [0, max * 1.05 || 1] } },
    series: [{ label: "s", value: (_, at) => known(at) ? at.toFixed(1) : "–" }, ...series],
    axes: axes(plain, isLog ? logged(millis) : plain),
  };
  new uPlot(options, [data.t, ...lines.map(line => line.values)], place);
}

function curves(place, width, lines) {
  const all = [...new Set(lines.flatMap(line => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  const values = lines.map(line => {
    const of = new Map(line.points);
    return all.map(x => of.get(x) ?? null);
  });
  const percent = value => value <= 1 ? "0 %" : value <= 10 ? "90 %" : (100 - 100 / value).toFixed(Math.max(0, Math.round(Math.log10(value)) - 2)) + " %";
  const series = lines.map(({ name, colour: which, dash }) => ({
    label: name, stroke: colour(which), width: 1.5, dash, spanGaps: true, points: { show: false },
    value: (_, value) => known(value) ? millis(value) + " ms" : "–",
  }));
  new uPlot({
    width, height: 260,
    scales: { x: { time: false, distr: 3 }, y: { distr: 3 } },
    series: [{ label: "percentile", value: (_, x) => known(x) ? (100 - 100 / x).toFixed(4).replace(/0+$/, "").replace(/\.$/, "") + " %" : "–" }, ...series],
    axes: axes(logged(percent), logged(millis)),
  }, [all, ...values], place);
}

function heat(place, width) {
  const { edges_ms: edges, cells } = data.heat;
  const ratio = window.devicePixelRatio || 1;
  const [left, bottom, height] = [54, 22, 240];
  const canvas = element("canvas", { width: width * ratio, height: height * ratio, style: { width: width + "px", height: height + "px" },
    role: "img", "aria-label": "how many operations took how long, over time" });
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  const [wide, high] = [width - left - 8, height - bottom - 6];
  const bins = edges.length - 1;
  const end = data.t[data.t.length - 1] || 1;
  const x = at => left + wide * at / end;
  const y = bin => 6 + high - high * bin / bins;
  let most = 1;
  for (const [, ...counts] of cells) for (const count of counts) most = Math.max(most, count);
  ctx.fillStyle = colour("--c1");
  cells.forEach(([first, ...counts], at) => {
    const [from, to] = [x(at ? data.t[at - 1] : 0), x(data.t[at])];
    counts.forEach((count, bin) => {
      if (!count) return;
      ctx.globalAlpha = 0.08 + 0.92 * Math.log1p(count) / Math.log1p(most);
      ctx.fillRect(from, y(first + bin + 1), Math.max(0.6, to - from + 0.3), y(first + bin) - y(first + bin + 1) + 0.3);
    });
  });
  ctx.globalAlpha = 1;
  ctx.fillStyle = colour("--fault");
  for (const [from, to] of spans) ctx.fillRect(x(from), 6, Math.max(1, x(Math.min(to, end)) - x(from)), high);
  ctx.fillStyle = colour("--quiet");
  ctx.font = "12px system-ui, sans-serif";
  ctx.textAlign = "right";
  for (let power = -3; power < 6; power++) {
    const ms = 10 ** power;
    if (ms < edges[0] || ms > edges[bins]) continue;
    const bin = bins * Math.log(ms / edges[0]) / Math.log(edges[bins] / edges[0]);
    ctx.fillText(millis(ms) + (power < 3 ? " ms" : ""), left - 4, y(bin) + 4);
  }
  ctx.textAlign = "center";
  for (let part = 0; part <= 4; part++) ctx.fillText((end * part / 4).toFixed(end < 20 ? 1 : 0) + " s", Math.min(x(end * part / 4), width - 18), height - 6);
  place.append(canvas);
}

function overview() {
  const latency = Object.entries(data.ops).map(([op, of]) => chart(`${op} response time, ms`, (place, width) => overTime(place, width, [
    { name: "p50", values: of.p50, colour: "--c4" },
    { name: "p99", values: of.p99, colour: "--c1" },
    { name: "p99.9", values: of.p999, colour: "--c2", width: 1 },
  ], true, "ms")));
  const note = spans.length ? element("p", { class: "quiet" }, "Shaded: from the start of a fault to its end (darker), and on until the mesh had recovered.") : null;
  section("Over time", chart("operations per second", (place, width) => overTime(place, width, [
    { name: "all", values: data.rate, colour: "--c1" },
    ...(run.totals.errors > 0 ? [{ name: "errors", values: data.errors, colour: "--bad" }] : []),
  ], false, "ops/s")), ...latency, chart("response times of all operations, by how many there were", heat), ...(note ? [note] : []));
  const dashed = line => ({ ...line, dash: line.is_service ? [5, 4] : undefined });
  const colours = { GET: "--c1", SET: "--c2", DEL: "--c3" };
  const lines = data.curves.map(line => dashed({ ...line, colour: colours[line.name.slice(0, 3)] || "--c6" }));
  if (lines.length) {
    const isOpen = lines.some(line => line.is_service);
    section("Percentiles", chart("response time" + (isOpen ? " (from when an operation was due) and service time (from when it was sent, dashed)" : "") + ", ms",
      (place, width) => curves(place, width, lines)));
    if (!isOpen) page.append(element("p", { class: "quiet" }, "A closed loop sends each operation when it is due: response and service time are the same."));
  }
  const rows = run.rows.filter(row => ["all", "service", "phase", "outcome"].includes(row.table));
  page.append(table(["ms", "count", "mean", "p50", "p95", "p99", "p99.9", "max"], rows.map(row =>
    [row.label, grouped(row.count), ...[row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms, row.p999_ms, row.max_ms].map(millis)])));
}

function outcomes() {
  const kinds = [...new Set(run.entries.map(entry => `${entry.op} ${entry.outcome}`))];
  const count = (node, kind) => run.entries.filter(entry => (node === null || entry.node === node) && `${entry.op} ${entry.outcome}` === kind)
    .reduce((sum, entry) => sum + entry.count, 0);
  const line = (name, node) => [name, ...kinds.map(kind => grouped(count(node, kind)))];
  section("Outcomes by entry node", table(["node", ...kinds], [
    ...run.setup.targets.map((target, node) => line(short(target), node)), line("all", null),
  ]));
  if (run.errors.length) page.append(table(["failures", "count", "the first"], run.errors.map(error => [error.kind, grouped(error.count), error.first]), [0, 2]));
}

const PARTS = [["lag_ms", "lag"], ["elsewhere_ms", "at another node first"], ["client_queue_ms", "client queue"], ["network_ms", "network"],
  ["server_queue_ms", "server queue"], ["residual_ms", "not told apart"], ["handler_ms", "handler"], ["mesh_rest_ms", "mesh"],
  ["legs_queued_ms", "legs' queues"]];
function whereP99Went() {
  const ops = ((run.reconciliation || {}).ops || []).filter(op => op.p99);
  if (!ops.length) return;
  section("Where the p99 went");
  for (const { op, p99 } of ops) {
    p99.mesh_rest_ms = p99.in_mesh_ms - p99.legs_queued_ms;
    const parts = PARTS.map(([field, name], at) => ({ name, ms: Math.max(0, p99[field]), colour: `var(--c${at + 1})` })).filter(part => part.ms > 0);
    const sum = parts.reduce((sum, part) => sum + part.ms, 0) || 1;
    page.append(
      element("p", {}, element("b", {}, op), ` p99 ${millis(p99.response_ms)} ms, as the requests nearest to it spent it`),
      element("div", { class: "bar" }, ...parts.map(part => element("div", { style: { width: 100 * part.ms / sum + "%", background: part.colour } }))),
      element("div", { class: "legend" }, ...parts.map(part => element("span", {}, element("span", { class: "key", style: { background: part.colour } }),
        `${part.name} ${millis(part.ms)} ms (${(100 * part.ms / sum).toFixed(0)} %)`))),
    );
  }
}

function faults() {
  if (!run.faults.length) return;
  const evidence = fault => fault.failure || Object.entries(fault.effect || {}).map(([name, value]) => `${name.replace(/_/g, " ")} ${Number(value.toFixed(2))}`).join(", ") || "–";
  const after = fault => known(fault.recovered_at_s) ? (known(fault.ended_at_s) ? "+" + seconds(fault.recovered_at_s - fault.ended_at_s) : "at " + seconds(fault.recovered_at_s)) : "not recovered";
  const dead = fault => fault.survivors.map(seen => `${short(seen.node)} dead ${known(seen.dead_at_s) ? "+" + seconds(seen.dead_at_s - fault.begun_at_s) : "never"}, alive ${known(seen.alive_at_s) ? "+" + seconds(seen.alive_at_s - fault.begun_at_s) : "never"}`).join("; ") || "–";
  section("Faults", table(["fault", "from", "to", "recovered", "evidence", "errors", "unknown", "seen by the others"], run.faults.map(fault => [
    `${fault.fault}${fault.fault.includes(short(fault.targets[0] || "")) ? "" : " (" + fault.targets.map(short).join(", ") + ")"}`,
    seconds(fault.begun_at_s), seconds(fault.ended_at_s), after(fault), evidence(fault), grouped(fault.errors), grouped(fault.outcome_unknown), dead(fault),
  ]), [0, 4, 7]));
  const timed = run.faults.filter(fault => fault.timeline);
  const back = at => at === 0 ? "as before" : known(at) ? "+" + seconds(at) : "–";
  if (timed.length) page.append(table(["after its start", "baseline p99", "first error", "detected", "last error", "p99 back", "hit ratio back", "in sync"], timed.map(({ fault, timeline }) => [
    fault, known(timeline.baseline_p99_ms) ? millis(timeline.baseline_p99_ms) + " ms" : "–", ...["first_error_s", "detected_s", "last_error_s"].map(at => known(timeline[at]) ? "+" + seconds(timeline[at]) : "–"),
    ...["p99_back_s", "hit_ratio_back_s", "in_sync_s"].map(at => back(timeline[at])),
  ])));
  const spread = found => known(found) ? `${seconds(found.median)} (${found.low.toFixed(2)} to ${found.high.toFixed(2)}${found.of < 6 ? ", all" : ""})` : "–";
  if ((run.repeated || []).length) page.append(table(["medians, with 95 % intervals", "times", "first error", "detected", "last error", "p99 back", "hit ratio back", "in sync"], run.repeated.map(of => [
    of.kind, grouped(of.times), ...["first_error_s", "detected_s", "last_error_s", "p99_back_s", "hit_ratio_back_s", "in_sync_s"].map(at => spread(of[at])),
  ])));
}

function notOrdered() {
  if (!observed.length) return;
  section("Observed, not ordered by this run", table(["at", "node", "what", "new address"],
    observed.map(event => [seconds(event.at_s), short(event.node), event.kind, event.address || "–"]), [1, 2, 3]));
}

function slowest() {
  if (!run.slowest.length) return;
  const rows = [...run.slowest].sort((one, other) => other.response_ms - one.response_ms).slice(0, 25);
  const trace = request => {
    if (!request.trace) return "–";
    const isLink = /^https?:\/\//.test(request.url || "");
    return isLink ? element("a", { href: request.url, rel: "noreferrer" }, request.trace.slice(0, 8)) : request.trace.slice(0, 8);
  };
  section("Slowest requests", table(["", "at", "ms", "lag", "elsewhere", "client queue", "network", "server queue", "not told", "handler", "mesh", "node", "trace"], rows.map(request => [
    `${request.op} ${request.outcome}, ${request.phase}`, seconds(request.at_s),
    ...[request.response_ms, request.lag_ms, request.elsewhere_ms, request.client_queue_ms, request.network_ms, request.server_queue_ms, request.residual_ms, request.handler_ms, request.mesh_ms].map(millis),
    short(run.setup.targets[request.node] || "–"), trace(request),
  ]), [0, 11, 12]));
}

function rest() {
  const machine = run.machine;
  const facts = [
    ["cores", String(machine.cores)], ["CPU", machine.cpu_model], ["kernel", machine.kernel],
    ["memory", machine.memory_bytes && (machine.memory_bytes / 2 ** 30).toFixed(1) + " GiB"],
    ["load average at the start", machine.load_average && machine.load_average.join(", ")],
    ["TCP congestion control", machine.tcp_congestion_control],
    ["CPU of the runner", `${run.cpu.client_percent.toFixed(0)} % of one core, ${run.cpu.client_us_per_op.toFixed(1)} µs/op`],
    ["CPU of the nodes, µs/op", run.cpu.node_us_per_op.map(us => known(us) ? us.toFixed(1) : "–").join(" + ")],
    ["version of the runner", run.versions.runner], ["versions of the nodes", run.versions.nodes.map(version => version || "–").join(", ")],
    ["seed", data.seed],
  ];
  section("Machine", table(["", ""], facts.filter(([, value]) => value).map(([name, value]) => [name, value]), [0, 1]));
  section("Settings", table(["", ""], Object.entries(run.settings).map(([name, value]) => [name, value]), [0, 1]));
}

document.title = "Mesh Bench run " + run.run_id;
verdict();
overview();
whereP99Went();
faults();
notOrdered();
outcomes();
slowest();
rest();
drawAll();
let width = window.innerWidth;
let waiting = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
for (const [event, isPaper] of [["beforeprint", true], ["afterprint", false]]) {
  window.addEventListener(event, () => {
    document.documentElement.classList.toggle("paper", isPaper);
    drawAll();
  });
}
