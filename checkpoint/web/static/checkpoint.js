/* Owns what a page does beside showing: local times, the sign that it is current, the host grid, the reason's freeze,
   the log's filter, the chart. Everything is readable, and every button works, without it. */
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const SILENT_MS = 7000;

  /* ---- times ---- */
  const clockOf = (at) => {
    const isToday = at.toDateString() === new Date().toDateString();
    const hours = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    return isToday ? hours : `${at.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" })} ${hours}`;
  };
  const spanOf = (ms) => {
    const s = Math.max(0, Math.round(ms / 1000));
    if (s < 90) return `${s} s`;
    if (s < 5400) return `${Math.round(s / 60)} min`;
    if (s < 172800) return `${Math.round(s / 3600)} h`;
    return `${Math.round(s / 86400)} d`;
  };
  let ahead_ms = 0; /* how far the server's clock is ahead of this one */
  const tellTimes = () => {
    for (const each of document.querySelectorAll("time[data-as]")) {
      const at = new Date(each.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const passed = Date.now() + ahead_ms - at.getTime();
      let text = clockOf(at);
      if (each.dataset.as === "ago") text = passed < 86400000 ? `${spanOf(passed)} ago` : clockOf(at);
      if (each.dataset.as === "until") text = passed < 0 ? `in ${spanOf(-passed)}` : "due";
      if (each.dataset.as === "time") text = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
      if (each.textContent !== text) each.textContent = text;
      if (!each.title) each.title = at.toISOString().replace(/\.000Z$/, "Z");
    }
  };

  /* ---- how current the page is ---- */
  let heard_ms = performance.now();
  let heardAt = new Date();
  let isLost = false;
  let goneWhy = "";
  const tellPulse = () => {
    const pulse = $("pulse"), stale = $("stale");
    if (!pulse || !stale) return;
    const silent_ms = performance.now() - heard_ms;
    const isStale = goneWhy !== "" || silent_ms > SILENT_MS || (isLost && silent_ms > 1500);
    pulse.dataset.state = isStale ? "lost" : "live";
    pulse.querySelector(".word").textContent = isStale ? "not live" : "live";
    stale.hidden = !isStale;
    if (isStale) {
      const why = goneWhy || "it tries to reach the server";
      stale.textContent = `Not live: last heard from the server at ${heardAt.toLocaleTimeString([], { hourCycle: "h23" })}. What is shown may be old; ${why}.`;
    }
  };
  const hear = () => { heard_ms = performance.now(); heardAt = new Date(); isLost = false; };

  /* ---- the grid, and the buttons ---- */
  const meanings = {};
  let cells = [];   /* all cells of all tiers, in the order of the stream's letters */
  const counts = {};
  const applyStates = (news) => {
    const grid = $("grid");
    if (!grid) return;
    if (grid.dataset.roster !== news.roster) { if (!isWriting()) location.reload(); return; }
    for (const [begin, letters] of news.runs) {
      for (let i = 0; i < letters.length; i += 1) {
        const cell = cells[begin + i], letter = letters[i], former = cell.dataset.s;
        if (former === letter) continue;
        counts[former] -= 1;
        counts[letter] = (counts[letter] || 0) + 1;
        cell.dataset.s = letter;
        cell.title = `${cell.title.split(": ")[0]}: ${meanings[letter]}`;
      }
    }
    for (const each of document.querySelectorAll("[data-count]")) {
      const count = String(counts[each.dataset.count] || 0);
      if (each.textContent !== count) each.textContent = count;
    }
    const form = $("act");
    if (form) {
      for (const button of form.querySelectorAll("button[name=action]")) button.hidden = !news.buttons.includes(button.value);
      $("nothing").hidden = news.buttons.length > 0;
    }
    latest = String(news.index);
    settleIndex();
    draw(counts.n || 0, news);
  };

  /* A decision is made on what was shown when the reason was begun: from then on the form's index stands still. */
  let latest = $("index") ? $("index").value : "";
  const isWriting = () => { const reason = $("reason"); return !!reason && reason.value.trim() !== ""; };
  const settleIndex = () => {
    const index = $("index"), moved = $("moved");
    if (!index || !moved) return;
    if (!isWriting()) index.value = latest;
    moved.hidden = index.value === latest;
  };

  const CELL_PX = () => (cells.length ? cells[0].getBoundingClientRect().width : 18) + 3;
  const perRowOf = (group) => Math.max(1, Math.floor((group.clientWidth + 3) / CELL_PX()));
  const MANY = 500, ROWS = 6;
  /* Blocks of whole rows, so that the browser can leave out those that are out of sight. */
  const gather = () => {
    const held = document.activeElement;
    for (const group of document.querySelectorAll(".cells")) {
      const own = [...group.getElementsByClassName("c")], perRow = perRowOf(group);
      if (own.length < MANY || group.dataset.per === String(perRow)) continue;
      group.dataset.per = String(perRow);
      const blocks = document.createDocumentFragment();
      for (let i = 0; i < own.length; i += perRow * ROWS) {
        const block = document.createElement("div");
        const some = own.slice(i, i + perRow * ROWS);
        block.className = "rows";
        block.style.containIntrinsicHeight = `${Math.ceil(some.length / perRow) * CELL_PX() - 3}px`;
        block.append(...some);
        blocks.append(block);
      }
      group.replaceChildren(blocks);
      if (group.contains(held)) held.focus();
    }
  };
  addEventListener("resize", gather);

  const walk = (event) => {
    const own = [...event.currentTarget.getElementsByClassName("c")];
    const here = own.indexOf(document.activeElement);
    if (here < 0) return;
    const perRow = perRowOf(event.currentTarget);
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow }[event.key];
    let to = by === undefined ? undefined : here + by;
    if (event.key === "Home") to = 0;
    if (event.key === "End") to = own.length - 1;
    if (to === undefined || to < 0 || to >= own.length) return;
    event.preventDefault();
    own[here].tabIndex = -1;
    own[to].tabIndex = 0;
    own[to].focus();
  };
  const prepareGrid = () => {
    for (const each of document.querySelectorAll(".legend li")) meanings[each.querySelector(".c").dataset.s] = each.childNodes[1].textContent.trim();
    if ($("grid")) cells = [...$("grid").getElementsByClassName("c")];
    for (const cell of cells) counts[cell.dataset.s] = (counts[cell.dataset.s] || 0) + 1;
    for (const group of document.querySelectorAll(".cells")) {
      const own = group.getElementsByClassName("c");
      for (let i = 0; i < own.length; i += 1) own[i].tabIndex = i === 0 ? 0 : -1;
      group.addEventListener("keydown", walk);
    }
    gather();
  };

  /* ---- the log's filter ---- */
  const filterLog = () => {
    const field = $("log-filter"), log = $("part-log");
    if (!field || !log) return;
    const wanted = field.value.trim().toLowerCase();
    for (const line of log.children) line.hidden = wanted !== "" && !line.textContent.toLowerCase().includes(wanted);
  };

  /* ---- the chart: hosts on the new build, as this page saw them ---- */
  const series = [[], []];
  let plot = null;
  const draw = (count) => {
    const place = $("chart");
    if (!place || typeof uPlot === "undefined") return;
    const now = (Date.now() + ahead_ms) / 1000;
    if (series[0].length === 0) for (const [at, known] of JSON.parse(place.dataset.points)) { series[0].push(at); series[1].push(known); }
    series[0].push(now); series[1].push(count);
    if (series[0].length > 2000) { series[0].shift(); series[1].shift(); }
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    if (plot) { plot.setData(series); return; }
    place.textContent = "";
    const times = (_, splits) => splits.map((at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }));
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    plot = new uPlot({
      width: place.clientWidth, height: 200, cursor: { y: false }, legend: { live: true },
      scales: { y: { range: (_, min, max) => [0, Math.max(1, max)] } },
      axes: [{ ...axis, values: times, space: 80 }, { ...axis, size: 46, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }],
      series: [{ label: "at", value: (_, at) => (at == null ? "—" : times(null, [at])[0]) }, { label: "hosts on the new build", stroke: colour("--s-n"), width: 2, fill: colour("--go-soft"), paths: uPlot.paths.stepped({ align: 1 }) }],
    }, series, place);
  };
  addEventListener("resize", () => { if (plot) plot.setSize({ width: $("chart").clientWidth, height: 200 }); });

  /* ---- events ---- */
  const stream = $("stream");
  if (stream) {
    stream.addEventListener("htmx:sse:after:message", () => { hear(); tellTimes(); filterLog(); tellPulse(); });
    stream.addEventListener("htmx:sse:error", () => { isLost = true; tellPulse(); });
    stream.addEventListener("htmx:sse:before:connection", () => { isLost = true; });
    stream.addEventListener("pulse", (event) => {
      const facts = JSON.parse(event.detail.data);
      ahead_ms = new Date(facts.now).getTime() - Date.now();
      hear(); tellPulse();
    });
    stream.addEventListener("states", (event) => applyStates(JSON.parse(event.detail.data)));
    stream.addEventListener("gone", (event) => { goneWhy = `${JSON.parse(event.detail.data).why}: sign in again`; tellPulse(); });
  }
  document.addEventListener("htmx:after:request", (event) => {
    const form = $("act"), ctx = event.detail && event.detail.ctx;
    if (!form || !ctx || ctx.sourceElement !== form) return;
    const status = ctx.response && ctx.response.status;
    if (status === 200) { $("reason").value = ""; settleIndex(); }
    if (status === 409) { $("index").value = latest; settleIndex(); }
  });
  if ($("reason")) $("reason").addEventListener("input", settleIndex);
  if ($("adopt")) $("adopt").addEventListener("click", () => { $("index").value = latest; settleIndex(); $("reason").focus(); });
  if ($("filter")) { $("filter").hidden = false; $("log-filter").addEventListener("input", filterLog); }
  prepareGrid();
  tellTimes();
  setInterval(() => { tellTimes(); tellPulse(); }, 1000);
})();
