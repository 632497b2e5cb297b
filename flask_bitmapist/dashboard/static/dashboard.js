// What JavaScript adds to the pages: pickers that search, charts with a cursor, arrow keys.
// Every page works without it.
"use strict";

(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  function pick(select) {
    if (!select.tomselect) {
      new TomSelect(select, {
        create: false, maxOptions: 1000, plugins: [],
        allowEmptyOption: select.value !== "", // to choose nothing again; before that it is the placeholder
        refreshThrottle: 0, // Enter takes what has been typed, however fast
        // What was chosen before makes way for what is typed.
        onType: (text) => { select.tomselect.wrapper.classList.toggle("typing", text !== ""); },
        onBlur: () => { select.tomselect.wrapper.classList.remove("typing"); },
        onItemAdd: () => { select.tomselect.wrapper.classList.remove("typing"); },
      });
      // A screen reader meets one combobox, which says what is chosen.
      const tell = () => select.tomselect.control_input.setAttribute("aria-description", select.selectedOptions[0]?.text ?? "");
      select.setAttribute("aria-hidden", "true");
      select.addEventListener("change", tell);
      tell();
    }
  }

  function number(cell) {
    const text = cell.textContent.replace(/,/g, "").trim();
    return text === "" ? null : Number(text);
  }

  function dayAndMonth(seconds) {
    const date = new Date(seconds * 1000);
    return `${date.getUTCDate()} ${date.toLocaleDateString("en-US", { month: "short", timeZone: "UTC" })}`;
  }

  // Replace the chart that the server drew by one made from its table, with a cursor and zoom by dragging.
  function draw(figure) {
    const table = document.getElementById(figure.dataset.table);
    const drawn = figure.querySelector(":scope > svg");
    if (!table || !drawn) return;
    const days = figure.dataset.chart === "days";
    const rows = [...table.tBodies[0].rows];
    const xs = rows.map((row) => (days
      ? Date.parse(row.querySelector("time").dateTime) / 1000
      : Number(row.querySelector("data").value)));
    const columns = [...rows[0].cells].slice(1).map((_, i) =>
      rows.map((row) => number(row.cells[i + 1])));
    const unit = days ? "" : " %";
    const steps = [...Array(10).keys()].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));
    const last = xs.length - 1;
    // Up to which point the line is whole; a day that is not over ends it dashed.
    const closed = drawn.querySelector(".running") ? last : last + 1;
    const axis = {
      stroke: () => colour("faint"), font: `${getComputedStyle(drawn.querySelector("text")).fontSize} system-ui`, ticks: { show: false },
      grid: { stroke: () => colour("line"), width: 1 },
    };
    const main = { stroke: () => colour("data"), width: 2, points: { show: false } };
    const wash = () => `color-mix(in srgb, ${colour("data")} 12%, transparent)`;
    const data = days
      ? [xs, columns[0].map((y, i) => (i < closed ? y : null)), columns[0].map((y, i) => (i < closed - 1 ? null : y))]
      : [xs, ...columns];
    const past = { ...main, width: 1.5, dash: [2, 4] }; // the range before
    const edge = { stroke: () => colour("data-soft"), width: 1, points: { show: false } };
    const series = days
      ? [{}, { ...main, fill: wash }, { ...main, dash: [3, 4] }]
      : [{}, main, edge, edge, past].slice(0, data.length);
    const target = Number(figure.dataset.target ?? 0);
    const readout = document.createElement("output");
    readout.className = "readout";
    const options = {
      width: figure.clientWidth,
      height: figure.clientHeight,
      padding: [16, 14, 0, 0],
      legend: { show: false },
      series,
      bands: days ? [] : [{ series: [3, 2], fill: wash }],
      scales: { x: { time: days }, y: { range: (u, low, high) => [0, Math.max(high, target) * 1.05 || 1] } },
      axes: [
        { ...axis, space: 80, size: 30, values: (u, ticks) => ticks.map((x) => (days
          ? dayAndMonth(x)
          : Number.isInteger(x) ? `+${x}` : "")) },
        { ...axis, ...(days && { incrs: steps }), size: 46, values: (u, ticks) => ticks.map((y) => y.toLocaleString("en") + unit) },
      ],
      cursor: { y: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      hooks: {
        draw: [(u) => {
          // A value that is to be reached: a line with its text, as the server draws it.
          if (!("target" in figure.dataset)) return;
          const y = Math.round(u.valToPos(target, "y", true)), { ctx, bbox } = u;
          ctx.save();
          ctx.strokeStyle = ctx.fillStyle = colour("good");
          ctx.lineWidth = 1.5 * devicePixelRatio;
          ctx.setLineDash([7 * devicePixelRatio, 4 * devicePixelRatio]);
          ctx.beginPath();
          ctx.moveTo(bbox.left, y);
          ctx.lineTo(bbox.left + bbox.width, y);
          ctx.stroke();
          ctx.textAlign = "right";
          ctx.textBaseline = "bottom";
          ctx.fillText(figure.dataset.targetText, bbox.left + bbox.width, y - 4 * devicePixelRatio);
          ctx.restore();
        }, (u) => {
          // What is noted on a day: the same.
          let level = 0;
          rows.forEach((row, i) => {
            const note = row.querySelector(".noted")?.textContent;
            const x = Math.round(u.valToPos(xs[i], "x", true)), { ctx, bbox } = u;
            if (!note || x < bbox.left || x > bbox.left + bbox.width) return;
            const onRight = x > bbox.left + bbox.width * 0.7, gap = 4 * devicePixelRatio;
            ctx.save();
            ctx.strokeStyle = ctx.fillStyle = colour("warm");
            ctx.setLineDash([gap, gap]);
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
            ctx.textAlign = onRight ? "right" : "left";
            ctx.textBaseline = "top";
            ctx.fillText(note.length > 16 ? `${note.slice(0, 15)}…` : note, x + (onRight ? -gap : gap), bbox.top + 13 * devicePixelRatio * (level++ % 3));
            ctx.restore();
          });
        }],
        setCursor: [(u) => {
          const cells = u.cursor.idx == null ? [] : [...rows[u.cursor.idx].cells].map((cell) => cell.textContent.trim());
          const zoomed = u.scales.x.min > xs[0] || u.scales.x.max < xs[last];
          readout.textContent = cells.length === 0 ? (zoomed ? "Double-click to see all" : "") : days
            ? `${cells[0]}: ${cells[1]}`
            : `${cells[0]}: ${cells[1]} % (95 % ${cells[2]}–${cells[3]})${cells[4] ? `, before: ${cells[4]} %` : ""}`;
        }],
      },
    };
    drawn.remove();
    const chart = new uPlot(options, data, figure);
    chart.root.setAttribute("aria-hidden", "true");
    figure.append(readout);
    chart.over.addEventListener("click", () => {
      const link = chart.cursor.idx == null ? null : rows[chart.cursor.idx].querySelector("a");
      if (link && chart.select.width === 0) link.click();
    });
    new ResizeObserver(() => {
      if (figure.isConnected && figure.clientWidth !== chart.width) chart.setSize({ width: figure.clientWidth, height: chart.height });
    }).observe(figure);
    figure.chart = chart;
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.querySelectorAll("figure[data-chart]").forEach((figure) => { figure.chart?.redraw(); });
  });

  // What listens on the window would outlive its element.
  document.addEventListener("htmx:beforeCleanupElement", ({ target }) => {
    target.tomselect?.destroy();
    target.chart?.destroy();
  });

  // A table of cells is a single Tab stop; the arrow keys move inside it.
  function walk(table) {
    table.querySelectorAll("td a").forEach((link, i) => { link.tabIndex = i ? -1 : 0; });
    table.addEventListener("mouseover", () => { table.classList.remove("hushed"); });
    table.addEventListener("keydown", (event) => {
      const cell = event.target.closest("td");
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!cell || !step) return;
      const row = table.rows[cell.parentElement.rowIndex + step[0]];
      const next = row && row.cells[cell.cellIndex + step[1]];
      const stop = next && next.querySelector("a, .value");
      if (!stop) return;
      event.preventDefault();
      event.target.tabIndex = -1;
      stop.tabIndex = 0;
      stop.focus();
    });
  }

  // A range has a name or two days: one empties the other, and the days begin as those that were shown.
  document.addEventListener("change", (event) => {
    const dates = event.target.matches(".range select") && event.target.parentElement.querySelector(".dates");
    if (!dates) return;
    const named = event.target.value !== "";
    dates.classList.toggle("given", !named);
    for (const input of dates.querySelectorAll("input")) input.value = named ? "" : input.value || input.dataset.shown;
  });

  // A link to these figures is copied, where the browser lets a page do that.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-copy]");
    if (!link || !navigator.clipboard || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    navigator.clipboard.writeText(link.href).then(() => {
      link.dataset.copied = "copied";
      document.getElementById("said").textContent = "The link is copied.";
      setTimeout(() => { delete link.dataset.copied; }, 2000);
    }, () => { location.href = link.href; });
  });

  // A cell's tooltip may cover another cell: Escape hides it.
  document.addEventListener("keydown", (event) => {
    document.querySelectorAll("table[data-grid]").forEach((table) => { table.classList.toggle("hushed", event.key === "Escape"); });
  });

  function enhance(root) {
    root.querySelectorAll("select[data-pick]").forEach(pick);
    root.querySelectorAll("figure[data-chart]").forEach(draw);
    root.querySelectorAll("table[data-grid]").forEach(walk);
  }

  // Leave empty fields out of the URL.
  document.addEventListener("htmx:configRequest", (event) => {
    const form = event.detail.formData;
    for (const name of new Set(form.keys())) {
      const given = form.getAll(name).filter((value) => value !== "");
      form.delete(name);
      given.forEach((value) => form.append(name, value));
    }
  });

  // When a form's answer replaces the content, reopen the tables that were open and restore the focus.
  let open = [];
  document.addEventListener("htmx:beforeSwap", () => {
    open = [...document.querySelectorAll("section details[open]")].map((one) => one.parentElement.getAttribute("aria-labelledby"));
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    enhance(event.detail.elt.isConnected ? event.detail.elt : document);
    const swapped = document.getElementById(event.detail.target.id);
    if (!swapped) return;
    open.forEach((name) => {
      const details = swapped.querySelector(`section[aria-labelledby="${name}"] details`);
      if (details) details.open = true;
    });
    if (swapped.id === "figures") return;
    if (document.activeElement === document.body) document.getElementById("show")?.focus({ preventScroll: true });
    const news = swapped.querySelector(".problem") ?? swapped.querySelector("[data-say], .lede");
    const said = document.getElementById("said"), text = news?.textContent.trim() ?? "";
    if (said.textContent !== text) said.textContent = text;
  });
  enhance(document);
})();
