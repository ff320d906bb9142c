"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const specs = JSON.parse(document.getElementById("charts").textContent);

  function config() {
    const [text, line, back] = dark.matches ? ["#e7e9ec", "#3a3f46", "#1f2226"] : ["#1c1e21", "#d5d9de", "#f5f6f8"];
    const labels = { labelColor: text, titleColor: text };
    return {
      background: back,
      font: "system-ui, sans-serif",
      view: { stroke: "transparent" },
      mark: { color: dark.matches ? "#7aa2f0" : "#3b6fd0" },
      axis: { ...labels, gridColor: line, domainColor: line, tickColor: line, labelLimit: 150, labelOverlap: true },
      legend: labels,
      range: { heatmap: dark.matches ? ["#1f2226", "#2f5fb3", "#a9c7ff"] : ["#ffffff", "#7ea6e8", "#163f8f"] },
    };
  }

  function draw() {
    specs.forEach((spec, number) => {
      const place = document.getElementById(`chart-${number}`);
      window.vegaEmbed(place, spec, {
        renderer: "svg",
        ast: true,
        actions: { export: true, source: false, compiled: false, editor: false },
        downloadFileName: `chart-${number}`,
        config: config(),
      }).then(() => {
        const summary = place.querySelector("summary");
        if (summary) summary.setAttribute("aria-label", "Save this chart as SVG or PNG");
      }).catch((error) => { place.textContent = `This chart cannot be drawn: ${error.message}`; });
    });
  }

  function makeSearchable(box) {
    const rows = [...box.querySelectorAll("tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
    const [input, output] = [box.querySelector("input"), box.querySelector("output")];
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      let found = 0;
      for (const [row, text] of rows) {
        row.hidden = !text.includes(wanted);
        found += row.hidden ? 0 : 1;
      }
      output.textContent = wanted ? `${found} of ${rows.length}` : "";
    });
  }

  document.querySelectorAll(".searchable").forEach(makeSearchable);
  if (window.vegaEmbed) {
    draw();
    dark.addEventListener("change", draw);
  }
})();
