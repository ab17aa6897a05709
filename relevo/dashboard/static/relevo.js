// What a page does beyond HTML: it hears what has changed, says when it no longer hears, and draws its tables.
"use strict";

const body = document.body;
const live = document.getElementById("live");

// One stream of news per page. It only names what to fetch again; htmx fetches it.
const hear = () => {
  let heardAt = new Date();
  let silence;
  const stream = new EventSource(body.dataset.live);
  const show = (state, text) => {
    if (live.dataset.state === state) return;
    live.dataset.state = state;
    live.textContent = text.replace("%s", heardAt.toISOString().slice(11, 19) + " UTC");
  };
  const lost = () => show("lost", live.dataset.lostText);
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(lost, 6000);
  };
  stream.onmessage = (message) => {
    const beat = JSON.parse(message.data);
    heard();
    if (!beat.ok) return show("stale", live.dataset.staleText);
    const back = live.dataset.state === "lost" || live.dataset.state === "stale";
    heardAt = new Date(beat.at);
    show("live", live.dataset.liveText);
    const topics = back ? ["figures", "flag", "rollout", "alerts", "run", "audit"] : beat.topics;
    topics.forEach((topic) => body.dispatchEvent(new Event("relevo:" + topic)));
  };
  stream.onerror = lost;
  stream.addEventListener("signed-out", () => {
    stream.close();
    location.reload();
  });
  addEventListener("pagehide", () => stream.close());
};
if (body.dataset.live && "EventSource" in window) hear();

// Charts are drawn from the table beneath them, so that both say the same.
const COLUMNS = { calls: [0, 1], error_rate: [2, 3], p95_latency_ms: [4, 5] };
const charts = new Map();

const rows = () =>
  [...document.querySelectorAll("#points tbody tr")].map((row) => ({
    at: Date.parse(row.dataset.at),
    values: [...row.querySelectorAll("td")].map((cell) => (cell.dataset.value === "" ? null : Number(cell.dataset.value))),
  }));

const colours = () => {
  const style = getComputedStyle(body);
  const dark = document.documentElement.getAttribute("data-bs-theme") === "dark";
  return {
    text: style.color,
    line: dark ? "#3a4656" : "#dfe3e8",
    bands: dark ? ["#5aa9ff14", "#5aa9ff2e"] : ["#0b5cad0d", "#0b5cad24"],
    sides: dark ? ["#9aa7b8", "#5aa9ff"] : ["#616c7a", "#0b5cad"],
    limits: dark ? ["#4cc38a", "#ff8080"] : ["#2b7a4b", "#c92a2a"],
  };
};

const LETTER = 6; // pixels of one, in the names of phases
const ENDS = ["insideStartTop", "insideEndTop"]; // Go is named on the left, No-Go on the right: they may lie close

// Phases of the rollout, as the list beneath the charts has them.
const bands = () =>
  [...document.querySelectorAll("#bands li")].map((each) => [
    { name: each.textContent.split(":")[0], xAxis: Date.parse(each.dataset.from) },
    { xAxis: Date.parse(each.dataset.until) },
  ]);

const option = (element, points) => {
  const { text, line, sides, limits, bands: shades } = colours();
  const numbers = document.getElementById("numbers");
  const begins = Date.parse(numbers.dataset.from);
  const room = element.clientWidth / (Date.parse(numbers.dataset.until) - begins);
  // A phase too short for its name has none here: it stands in the list beneath.
  const phases = bands().map(([from, until], place) => {
    const fits = (until.xAxis - Math.max(from.xAxis, begins)) * room > from.name.length * LETTER;
    return [{ ...from, itemStyle: { color: shades[place % 2] }, label: { show: fits } }, until];
  });
  const [first, second] = COLUMNS[element.dataset.chart];
  const unit = element.dataset.unit;
  const marks = element.dataset.limits.split(";").filter(Boolean).map((each, place) => {
    const [value, ...words] = each.trim().split(" ");
    return { yAxis: Number(value), name: words.join(" "), lineStyle: { color: limits[place] }, label: { color: limits[place], position: ENDS[place] } };
  });
  const series = ["v1", "v2"].map((name, side) => ({
    name,
    type: "line",
    showSymbol: points.length < 3,
    connectNulls: false,
    lineStyle: { width: 2, type: side ? "solid" : "dashed" },
    data: points.map((point) => [point.at, point.values[side ? second : first]]),
    markArea: side && phases.length
      ? { silent: true, label: { color: text, fontSize: 10, position: "insideBottom" }, data: phases }
      : undefined,
    markLine: side && marks.length
      ? { silent: true, symbol: "none", label: { formatter: "{b} {c}" }, data: marks }
      : undefined,
  }));
  const highest = Math.max(...marks.map((mark) => mark.yAxis), 0);
  return {
    animation: false,
    color: sides,
    textStyle: { color: text, fontFamily: "inherit" },
    aria: { enabled: true, label: { description: element.dataset.label + ", v1, v2" } },
    grid: { left: 8, right: 12, top: 34, bottom: 8, containLabel: true },
    legend: { top: 0, textStyle: { color: text } },
    tooltip: { trigger: "axis", renderMode: "richText", valueFormatter: (value) => (value == null ? "—" : (+value).toFixed(unit === "%" ? 2 : 0) + (unit && " " + unit)) },
    xAxis: { type: "time", min: Date.parse(numbers.dataset.from), max: Date.parse(numbers.dataset.until), useUTC: true, splitNumber: 4, axisLabel: { color: text, hideOverlap: true }, axisLine: { lineStyle: { color: line } } },
    yAxis: { type: "value", min: 0, max: (range) => Math.max(range.max, highest * 1.05) || null, axisLabel: { color: text, showMaxLabel: !marks.length }, splitLine: { lineStyle: { color: line } } },
    useUTC: true,
    series,
  };
};

const draw = () => {
  if (!window.echarts) return;
  const points = rows();
  document.querySelectorAll("[data-chart]").forEach((element) => {
    if (!points.length) return;
    if (!charts.has(element)) charts.set(element, echarts.init(element, null, { renderer: "svg" }));
    charts.get(element).setOption(option(element, points), true);
  });
};

draw();
addEventListener("resize", () => charts.forEach((chart) => chart.resize()));
document.addEventListener("relevo:theme", draw);
document.addEventListener("htmx:afterSwap", draw);
// What was opened stays open when it is fetched again, wherever in the page it comes to stand.
const opened = new Set();
const folds = (id) => document.querySelectorAll("#" + CSS.escape(id) + " details");
const remember = ({ detail: { target } }) => {
  if (target.id) folds(target.id).forEach((each, place) => each.open && opened.add(target.id + " " + place));
};
document.addEventListener("htmx:beforeSwap", remember);
document.addEventListener("htmx:oobBeforeSwap", remember);
document.addEventListener("htmx:afterSwap", () => {
  opened.forEach((each) => {
    const [id, place] = each.split(" ");
    const again = folds(id)[place];
    if (again) again.open = true;
  });
  opened.clear();
});
