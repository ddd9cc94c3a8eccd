// Draws the curves of a training run from its metrics.json and keeps them going while the run does.
// Colours come from the page's own tokens, so that charts follow light and dark.
"use strict";

(() => {
  const POLL_MS = 2000;
  const HEIGHT_PX = 132;
  const live = new Map(); // container -> {plots: name -> plot, timer}

  const compact = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3, notation: "compact" });
  const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });

  function show(curve, value) {
    if (value === null || value === undefined) return "–";
    if (curve.unit === "%") return percent.format(value);
    const small = value !== 0 && Math.abs(value) < 10 ** -curve.digits;
    const text = small ? value.toExponential(2) : value.toFixed(Number.isInteger(value) ? 0 : curve.digits);
    return curve.unit ? `${text} ${curve.unit}` : text;
  }

  function mark(curve, tick) {
    if (curve.unit === "%") return percent.format(tick);
    return tick !== 0 && Math.abs(tick) < 0.001 ? tick.toExponential(1) : compact.format(tick);
  }

  // A line needs two points: until there are some, each value is a dot.
  const isFew = (plot) => plot.data[0].length < 8;

  // A token as the browser paints it: custom properties alone do not resolve light-dark().
  function colour(element, token) {
    const probe = document.createElement("i");
    probe.className = `probe-${token}`;
    element.append(probe);
    const painted = getComputedStyle(probe).color;
    probe.remove();
    return painted;
  }

  function options(container, curve, width, say) {
    const ink = colour(container, "ink-soft");
    const rule = { stroke: colour(container, "rule"), width: 1 };
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: ink, font, grid: rule, ticks: { ...rule, size: 4 } };
    return {
      width,
      height: HEIGHT_PX,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: false } },
      axes: [
        { ...axis, size: 26, space: 60, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : "")) },
        { ...axis, size: 60, space: 32, values: (_, ticks) => ticks.map((tick) => mark(curve, tick)) },
      ],
      series: [{}, { stroke: colour(container, "series-1"), width: 1.75, points: { show: isFew, size: 5 } }],
      hooks: { setCursor: [say] },
    };
  }

  function makePlot(container, curve) {
    const figure = document.createElement("figure");
    figure.className = "chart";
    const caption = document.createElement("figcaption");
    const name = document.createElement("strong");
    const reading = document.createElement("span");
    const explanation = document.createElement("small");
    const canvas = document.createElement("div");
    name.textContent = curve.label;
    reading.className = "chart-reading";
    explanation.textContent = curve.explanation;
    canvas.setAttribute("role", "img");
    caption.append(name, reading, explanation);
    figure.append(caption, canvas);
    container.append(figure);
    const plot = { figure, canvas, reading, curve, steps: [], drawn: null };
    plot.say = () => {
      const at = plot.drawn?.cursor.idx;
      const isOver = at !== null && at !== undefined && plot.drawn.cursor.left >= 0;
      reading.textContent = isOver ? `${show(plot.curve, plot.curve.values[at])} · ${plot.steps[at]}` : plot.curve.last;
    };
    plot.watch = new ResizeObserver(() => {
      const width = canvas.clientWidth;
      if (plot.drawn && width && width !== plot.drawn.width) plot.drawn.setSize({ width, height: HEIGHT_PX });
    });
    plot.watch.observe(canvas);
    return plot;
  }

  function draw(container, plot) {
    const data = [plot.steps, plot.curve.values];
    if (plot.drawn) plot.drawn.setData(data);
    else plot.drawn = new uPlot(options(container, plot.curve, plot.canvas.clientWidth || 320, plot.say), data, plot.canvas);
    plot.canvas.setAttribute("aria-label", `${plot.curve.label}: ${plot.curve.last}`);
    plot.say();
  }

  async function load(container) {
    const state = live.get(container);
    if (!state || document.hidden) return;
    let data = null;
    try {
      const response = await fetch(container.dataset.charts, { headers: { Accept: "application/json" } });
      if (response.ok) data = await response.json();
    } catch {
      // The server is away; the next try will tell.
    }
    if (!live.has(container)) return;
    if (data) {
      const limit = Number(container.dataset.limit) || data.curves.length;
      for (const curve of data.curves.slice(0, limit)) {
        if (!state.plots.has(curve.name)) state.plots.set(curve.name, makePlot(container, curve));
        const plot = state.plots.get(curve.name);
        Object.assign(plot, { curve, steps: data.steps });
        draw(container, plot);
      }
      state.isOver = !data.is_live;
    }
    if (!state.isOver) state.timer = setTimeout(load, POLL_MS, container);
  }

  function forget(container) {
    const state = live.get(container);
    clearTimeout(state.timer);
    for (const plot of state.plots.values()) {
      plot.watch.disconnect();
      plot.drawn?.destroy();
      plot.figure.remove();
    }
    live.delete(container);
  }

  function scan() {
    for (const container of [...live.keys()]) if (!container.isConnected) forget(container);
    for (const container of document.querySelectorAll("[data-charts]")) {
      if (live.has(container)) continue;
      container.replaceChildren();
      live.set(container, { plots: new Map(), timer: 0, isOver: false });
      load(container);
    }
  }

  function redraw() {
    for (const container of [...live.keys()]) forget(container);
    scan();
  }

  document.addEventListener("htmx:after:swap", scan);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const [container, state] of live) {
      clearTimeout(state.timer);
      if (!state.isOver) load(container);
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  scan();
})();
