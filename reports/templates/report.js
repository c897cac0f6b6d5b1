"use strict";
// The page without this script is complete but for its charts: headings, captions, tables.
(() => {
  const root = document.documentElement;
  const charts = [...document.querySelectorAll(".chart")];
  const views = new Map(); // chart -> what vegaEmbed gave

  const NARROW = 520; // pixels of a chart, about a phone

  // Colours come from the style sheet, so that themes and paper need no new drawing.
  const config = {
    background: null,
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    text: { color: "currentColor" },
    view: { stroke: null },
    axis: { labelFontSize: 11.5, titleFontSize: 11.5, titleFontWeight: "normal", titlePadding: 8 },
    legend: { labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", symbolOpacity: 1 },
    header: { labelFontSize: 12, titleFontSize: 12 },
  };

  // On a phone legends stand below each other, in two columns.
  function narrowed(part) {
    if (Array.isArray(part)) return part.map(narrowed);
    if (part === null || typeof part !== "object") return part;
    const found = Object.fromEntries(Object.entries(part).map(([key, value]) => [key, narrowed(value)]));
    if (found.legend?.columns > 2) found.legend.columns = 2;
    return found;
  }

  function specOf(chart) {
    const mode = chart.dataset.mode === "relative" ? chart.dataset.relative : chart.dataset.absolute;
    const spec = JSON.parse(document.getElementById(mode).textContent);
    delete spec.background;
    if (chart.clientWidth >= NARROW) return spec;
    const { datasets, ...rest } = spec;
    return { ...narrowed(rest), datasets };
  }

  async function draw(chart) {
    if (chart.dataset.state) return;
    chart.dataset.state = "drawing";
    const controls = chart.parentElement.querySelector(".controls");
    try {
      views.get(chart)?.finalize();
      controls.replaceChildren();
      const spec = specOf(chart);
      const direction = chart.clientWidth < NARROW ? "vertical" : "horizontal";
      const legend = { ...config.legend, layout: { top: { anchor: "start", direction } } };
      const result = await vegaEmbed(chart, spec, {
        actions: false, ast: true, bind: controls, config: { ...config, legend }, mode: "vega-lite", renderer: "svg",
        tooltip: { theme: "custom" },
      });
      views.set(chart, result);
      addKeys(controls, spec, result.view);
      chart.dataset.state = "drawn";
    } catch (error) {
      chart.dataset.state = "failed";
      chart.textContent = "This chart could not be drawn; the table below holds its numbers.";
      console.error(error);
    }
  }

  // A legend answers to clicks only. The same choice for those who use keys: buttons that show when reached.
  function addKeys(controls, spec, view) {
    const choice = (spec.params ?? []).find((param) => param.bind === "legend");
    if (!choice) return;
    const field = choice.select.fields[0];
    const chosen = () => view.data(`${choice.name}_store`).map((tuple) => String(tuple.values[0]));
    const keys = document.createElement("div");
    keys.className = "keys";
    for (const value of view.scale("color").domain()) {
      const key = document.createElement("button");
      key.type = "button";
      key.textContent = value;
      key.addEventListener("click", async () => {
        view.signal(`${choice.name}_toggle`, true);
        await view.signal(`${choice.name}_${field}_legend`, null).runAsync();
        await view.signal(`${choice.name}_${field}_legend`, value).runAsync();
      });
      keys.append(key);
    }
    const show = () => {
      for (const key of keys.children) key.setAttribute("aria-pressed", String(chosen().includes(key.textContent)));
    };
    view.addDataListener(`${choice.name}_store`, show);
    show();
    controls.append(keys);
  }

  async function redraw(chart) {
    delete chart.dataset.state;
    await draw(chart);
  }

  // What is near is drawn first, the rest when nothing else is to do: printing finds all of it.
  const near = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "400px" });
  charts.forEach((chart) => near.observe(chart));
  const idle = window.requestIdleCallback ?? ((then) => setTimeout(then, 50));
  async function drawRest() {
    const next = charts.find((chart) => !chart.dataset.state);
    if (next) {
      await draw(next);
      idle(drawRest);
    }
  }
  window.addEventListener("load", () => idle(drawRest));

  // Absolute or relative to the baseline, figure by figure.
  for (const group of document.querySelectorAll(".switch")) {
    const chart = document.getElementById(group.dataset.for).querySelector(".chart");
    group.disabled = false;
    group.addEventListener("change", (event) => {
      chart.dataset.mode = event.target.value;
      redraw(chart);
    });
  }

  // Light and dark: as the system has it, until somebody says otherwise.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  system.addEventListener("change", showTheme);
  theme.hidden = false;
  showTheme();

  // The contents: folded where there is little room, and where one is in them.
  if (matchMedia("(max-width: 60rem)").matches) document.getElementById("contents").open = false;
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const here = new IntersectionObserver((seen) => {
    for (const entry of seen) {
      if (!entry.isIntersecting) continue;
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(entry.target.getAttribute("aria-labelledby"))?.setAttribute("aria-current", "location");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  document.querySelectorAll("section").forEach((section) => here.observe(section));

  // On paper everything is open.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => { details.open = true; });
    charts.forEach(draw);
  });
  window.addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));
})();
