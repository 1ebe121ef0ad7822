// Draws each figure with data-chart from the JSON block of the same id, in the colours of the page, light or dark.
/* global uPlot */
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();

const WRITE = {
  percent: (value) => `${(value * 100).toFixed(Math.abs(value) < 0.1 ? 2 : 1)} %`,
  number: (value) => value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 10 ? 4 : 2 }),
  score: (value) => value.toFixed(1),
};
const TICKS = {
  percent: (value) => `${Number((value * 100).toFixed(2))} %`,
  number: (value) => value.toLocaleString("en", { maximumFractionDigits: 4, notation: Math.abs(value) >= 1e6 ? "compact" : "standard" }),
  score: (value) => String(value),
};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function tint(number) {
  return colour(/^\d$/.test(number) ? `--series-${number}` : `--${number}`);
}

function line(series, write) {
  const stroke = tint(series.colour);
  const base = { label: series.label, stroke, width: 1.6, value: (_, value) => (value == null ? "–" : write(value)), points: { show: false } };
  if (series.dash) base.dash = [6, 4];
  if (series.kind === "edge") return { ...base, width: 0.6 };
  if (series.kind === "bars") return { ...base, width: 0, fill: stroke, paths: uPlot.paths.bars({ size: [0.7, 60] }) };
  if (series.kind === "points") return { ...base, width: 0, paths: () => null, points: { show: true, size: 6, width: 1, stroke, fill: stroke } };
  return { ...base, spanGaps: true };
}

function options(spec, width, height) {
  const axis = { stroke: colour("--soft"), font: "12px system-ui, sans-serif", grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid"), width: 1, size: 4 } };
  const tick = TICKS[spec.unit];
  return {
    width, height,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    cursor: { sync: { key: spec.group }, points: { size: 6 } },
    scales: { x: { time: true }, y: { distr: spec.log ? 3 : 1, range: spec.unit === "score" ? [0, 104] : undefined } },
    axes: [{ ...axis, space: 70 }, { ...axis, size: 64, values: (_, values) => values.map((value) => (value == null ? "" : tick(value))) }],
    series: [{ label: "Session", value: "{YYYY}-{MM}-{DD}" }, ...spec.series.map((series) => line(series, WRITE[spec.unit]))],
    bands: spec.bands.map(([upper, lower]) => ({ series: [upper + 1, lower + 1], fill: colour("--band") })),
    legend: { live: true },
    // without a pointer the legend shows the newest values
    hooks: { setLegend: [(chart) => { if (chart.legend.idx == null) chart.setLegend({ idx: spec.x.length - 1 }, false); }] },
  };
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const spec = JSON.parse(document.getElementById(figure.dataset.chart).textContent);
  const height = plot.classList.contains("low") ? 150 : 250;
  drawn.get(figure)?.destroy();
  plot.replaceChildren();
  const chart = new uPlot(options(spec, plot.clientWidth, height), [spec.x, ...spec.series.map((s) => s.values)], plot);
  chart.setLegend({ idx: spec.x.length - 1 });
  drawn.set(figure, chart);
  figure.dataset.drawn = "yes";
}

const figures = [...document.querySelectorAll("[data-chart]")];
const watcher = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const chart = drawn.get(target.closest("[data-chart]"));
    if (chart && target.clientWidth && Math.abs(chart.width - target.clientWidth) > 1) chart.setSize({ width: target.clientWidth, height: chart.height });
  }
});
for (const figure of figures) {
  draw(figure);
  watcher.observe(figure.querySelector(".plot"));
}
dark.addEventListener("change", () => figures.forEach(draw));
