/* Owns the charts of a rollout's metrics: rates of both sides, evidence against its lines, the ratio with its interval.
   What they show is in the tables as well, for whoever has no eyes on them, or no JavaScript. */
(() => {
  "use strict";
  const place = document.getElementById("charts");
  if (!place || typeof uPlot === "undefined") return;
  const HEIGHT = 190, KEPT = 2000, FLOOR = -2, TOP = 30;
  const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const digits = (value) => (value === 0 ? "0" : value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2))));
  const SUPER = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const power = (log) => {
    if (log <= FLOOR) return "below 0.01";
    if (log < 6) return digits(10 ** log);
    const exponent = Math.floor(log), mantissa = (10 ** (log - exponent)).toFixed(1);
    return `${mantissa === "1.0" ? "" : `${mantissa}·`}10${[...String(exponent)].map((each) => SUPER[each]).join("")}`;
  };
  /* Evidence soon has a hundred digits; what counts is where it crosses the lines. */
  const ceiling = (track) => Math.max(...track.lines.map((each) => each.at)) + 4;
  const clip = (values, low, high) => values.map((value) => (value == null ? null : Math.min(high, Math.max(low, value))));

  /* ---- the three kinds of charts: which lines they have, on which scale, in which words ---- */
  const rateOf = (track) => (value) => (track.kind === "share" ? `${Number((value * 100).toPrecision(3))} %` : digits(value));
  const kinds = [
    {
      title: () => "Failures: updated, and not yet",
      series: (track) => [
        { label: "updated", key: "new", values: track.updated },
        ...(track.limit === null ? [{ label: "not yet updated", key: "old", values: track.others, dash: [5, 3] }] : []),
      ],
      rules: (track) => (track.limit === null ? [] : [{ label: "limit", key: "back", at: track.limit }]),
      words: rateOf,
      range: (low, high) => [0, high > 0 ? high * 1.1 : 0.01],
      size: 58,
    },
    {
      title: () => "Evidence against the build",
      isUnlabelled: true, /* its lines need the room; the cursor shows where the orders are */
      series: (track) => [
        { label: "all", key: "new", values: clip(track.evidence, FLOOR, ceiling(track)), raw: track.evidence },
        { label: "without any one host", key: "old", values: clip(track.without, FLOOR, ceiling(track)), raw: track.without, dash: [5, 3] },
      ],
      rules: (track) => {
        const [wait, pause, back] = track.lines;
        const both = pause.at === back.at;
        return [
          { label: "wait", key: "wait", at: wait.at },
          { label: both ? "pause, roll back" : "pause", key: both ? "back" : "pause", at: pause.at },
          ...(both ? [] : [{ label: "roll back", key: "back", at: back.at }]),
        ];
      },
      words: () => power,
      range: (low, high, rules) => [FLOOR, Math.max(high, ...rules.map((each) => each.at)) * 1.08 + 0.4],
      tick: (at) => (at <= FLOOR ? "<0.01" : power(at)),
      splits: (low, high) => {
        const step = Math.max(1, Math.ceil((high - low) / 6));
        const found = [];
        for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
        return found;
      },
      size: 54,
    },
    {
      title: (track) => (track.limit === null ? "Times as frequent as on the others" : "Times the limit"),
      series: (track) => {
        const log = (value) => (value == null ? null : value <= 0 ? -9 : Math.log2(value));
        const gap = track.lower.map((value) => value == null);
        const ratio = track.ratio.map((value, i) => (gap[i] ? null : value == null ? null : log(value)));
        /* An end that is open is drawn beyond the edge. */
        return [
          { label: "estimate", key: "new", values: ratio, raw: track.ratio },
          { label: "95 % sure", key: "muted", values: track.lower.map(log), raw: track.lower, band: true },
          { label: "", key: "muted", values: track.upper.map((value, i) => (gap[i] ? null : value == null ? TOP : log(value))), raw: track.upper, band: true },
        ];
      },
      rules: (track) => [{ label: track.limit === null ? "tolerance" : "limit", key: "back", at: Math.log2(track.tolerance) }],
      words: () => (value) => digits(value),
      isRatio: true,
      range: (low, high, rules) => [Math.max(-4, Math.min(-2, low)), Math.min(7, Math.max(3, high, ...rules.map((each) => each.at)) + 0.3)],
      splits: (low, high) => {
        const found = [];
        for (let at = Math.ceil(low); at <= high; at += 1) found.push(at);
        return found.length > 7 ? found.filter((at) => at % 2 === 0) : found;
      },
      tick: (at) => (at < 0 ? `1/${2 ** -at}` : String(2 ** at)),
      size: 46,
    },
  ];

  /* ---- drawing ---- */
  const drawRules = (kind, state) => (u) => {
    const { ctx } = u, dpr = devicePixelRatio || 1;
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.beginPath(); ctx.rect(left, top, width, height); ctx.clip();
    ctx.font = `${11 * dpr}px system-ui, sans-serif`;
    ctx.lineWidth = dpr;
    ctx.lineJoin = "round";
    const card = colour("--card");
    const crisp = (at) => Math.round(at) + (dpr % 2) / 2; /* a line between two rows of dots is a pale one */
    const write = (text, x, y) => {
      ctx.save();
      ctx.setLineDash([]); ctx.strokeStyle = card; ctx.lineWidth = 3 * dpr;
      ctx.strokeText(text, x, y);
      ctx.restore();
      ctx.fillText(text, x, y);
    };
    let above = -Infinity;
    for (const rule of kind.rules(state.track).reverse()) {
      const y = crisp(u.valToPos(rule.at, "y", true));
      ctx.strokeStyle = ctx.fillStyle = colour(`--c-${rule.key}`);
      ctx.setLineDash([8 * dpr, 4 * dpr]);
      ctx.beginPath(); ctx.moveTo(left, y); ctx.lineTo(left + width, y); ctx.stroke();
      ctx.textAlign = "right"; ctx.textBaseline = "bottom";
      if (y - above > 13 * dpr) write(rule.label, left + width - 3 * dpr, y - 2 * dpr);
      above = y;
    }
    ctx.strokeStyle = ctx.fillStyle = colour("--c-mark");
    ctx.textAlign = "left"; ctx.textBaseline = "bottom";
    let free = -Infinity;
    for (const mark of state.marks) {
      const x = crisp(u.valToPos(mark.at, "x", true));
      if (x < left || x > left + width) continue;
      ctx.setLineDash([2 * dpr, 3 * dpr]);
      ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
      const wide = ctx.measureText(mark.name).width;
      if (x < free) continue;
      const begin = Math.min(x + 3 * dpr, left + width - wide - 2 * dpr);
      if (begin < free || kind.isUnlabelled) continue;
      write(mark.name, begin, top + height - 3 * dpr);
      free = begin + wide + 6 * dpr;
    }
    ctx.restore();
  };

  const KEY_SVG = "http://www.w3.org/2000/svg";
  const keyLine = (key, dash) => {
    const svg = document.createElementNS(KEY_SVG, "svg"), line = document.createElementNS(KEY_SVG, "line");
    svg.setAttribute("viewBox", "0 0 18 8");
    svg.setAttribute("aria-hidden", "true");
    for (const [name, value] of Object.entries({ x1: 0, x2: 18, y1: 4, y2: 4, "stroke-width": 2.5, class: `k-${key}`, ...(dash ? { "stroke-dasharray": "5 3" } : {}) })) line.setAttribute(name, value);
    svg.append(line);
    return svg;
  };

  const keyBand = () => {
    const svg = keyLine("band");
    svg.firstChild.setAttribute("stroke-width", 8);
    return svg;
  };
  const between = (lower, upper) => {
    if (lower == null) return "—";
    return upper == null ? `at least ${digits(lower)}` : `${digits(lower)} to ${digits(upper)}`;
  };

  const tell = (kind, state, view) => {
    const i = view.at == null || view.at >= state.track.at.length ? state.track.at.length - 1 : view.at;
    const words = kind.words(state.track);
    view.keys.textContent = "";
    const item = (label, value, mark) => {
      const li = document.createElement("li"), bold = document.createElement("b");
      if (mark) li.append(mark);
      bold.textContent = value;
      li.append(`${label} `, bold);
      view.keys.append(li);
    };
    if (i < 0) return;
    item("at", clock(state.track.at[i]));
    for (const each of kind.series(state.track)) {
      if (each.label === "") continue;
      const value = (each.raw || each.values)[i];
      if (each.band) { item(each.label, between(state.track.lower[i], state.track.upper[i]), keyBand()); continue; }
      const open = kind.isRatio && state.track.lower[i] != null ? "beyond all bounds" : "—";
      item(each.label, value == null ? open : words(value), keyLine(each.key, each.dash));
    }
  };

  /* Dots are for intervals without a neighbour, which no line shows, and for courses that have hardly begun. */
  const dots = (u, s) => {
    const values = u.data[s], found = [];
    const isShort = values.length < 12;
    for (let i = 0; i < values.length; i += 1) if (values[i] != null && (isShort || (values[i - 1] == null && values[i + 1] == null))) found.push(i);
    return found;
  };
  const dataOf = (kind, state) => [state.track.at, ...kind.series(state.track).map((each) => each.values)];
  const shown = []; /* {kind, state, view, plot} */
  const makePlot = (one) => {
    const { kind, state, view } = one;
    if (one.plot) { one.plot.destroy(); one.plot = null; }
    view.area.textContent = "";
    if (state.track.at.length === 0) {
      const empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = "No interval yet: its source is asked once a step's hosts serve.";
      view.area.append(empty);
      view.keys.textContent = "";
      return;
    }
    const line = colour("--line"), muted = colour("--muted");
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
    const words = kind.words(state.track);
    const tick = kind.tick || words;
    const series = kind.series(state.track);
    const bands = series.some((each) => each.band) ? [{ series: [3, 2], fill: colour("--c-band") }] : undefined;
    one.plot = new uPlot({
      width: Math.max(120, view.area.clientWidth), height: HEIGHT, legend: { show: false },
      cursor: { y: false, sync: { key: `metric-${state.place}` }, drag: { x: false, y: false } },
      scales: {
        x: { time: true, range: (_, low, high) => (high - low < 300 ? [high - 300, high + 20] : [low, high + (high - low) * 0.02]) },
        y: { range: (_, low, high) => kind.range(low ?? 0, high ?? 0, kind.rules(state.track)) },
      },
      axes: [
        { ...axis, size: 28, values: (_, splits) => splits.map(clock), space: 62, incrs: [60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400] },
        { ...axis, size: kind.size, space: 26, values: (_, splits) => splits.map(tick), ...(kind.splits ? { splits: (_, __, low, high) => kind.splits(low, high) } : {}) },
      ],
      series: [{}, ...series.map((each) => ({
        label: each.label, spanGaps: false, width: each.band ? 0 : 2, dash: each.dash, stroke: colour(each.key === "muted" ? "--muted" : `--c-${each.key}`),
        points: each.band ? { show: false } : { show: true, size: 5, filter: dots },
      }))],
      bands,
      hooks: {
        draw: [drawRules(kind, state), () => { view.area.dataset.drawn = String(state.track.at.length); view.area.dataset.last = String(state.track.at.at(-1)); }],
        setCursor: [(u) => { view.at = u.cursor.idx; tell(kind, state, view); }],
      },
    }, dataOf(kind, state), view.area);
    tell(kind, state, view);
  };
  const refresh = (state) => {
    for (const one of shown) {
      if (one.state !== state) continue;
      if (!one.plot) makePlot(one);
      else { one.plot.setData(dataOf(one.kind, state)); tell(one.kind, state, one.view); }
    }
  };

  /* Arrow keys walk through the intervals, and what they show is said. */
  const walk = (one) => (event) => {
    const last = one.state.track.at.length - 1;
    if (!one.plot || last < 0) return;
    const here = one.view.at ?? last;
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last }[event.key];
    if (to === undefined || to < 0 || to > last) return;
    event.preventDefault();
    one.plot.setCursor({ left: one.plot.valToPos(one.state.track.at[to], "x"), top: 10 });
    one.view.at = to;
    tell(one.kind, one.state, one.view);
  };

  /* ---- what is shown, and what comes ---- */
  const COLUMNS = ["at", "updated", "others", "evidence", "without", "ratio", "lower", "upper"];
  let states = null;
  const build = (drawing) => {
    states = drawing.metrics.map((track, number) => ({ track, marks: drawing.marks, place: number }));
    for (const one of shown) if (one.plot) one.plot.destroy();
    shown.length = 0;
    for (const state of states) {
      const plots = document.querySelector(`.plots[data-place="${state.place}"]`);
      if (!plots) continue;
      plots.textContent = "";
      for (const kind of kinds) {
        const figure = document.createElement("figure"), caption = document.createElement("figcaption");
        const area = document.createElement("div"), keys = document.createElement("ul");
        figure.className = "plot"; area.className = "area"; keys.className = "keys";
        caption.textContent = kind.title(state.track);
        area.tabIndex = 0;
        area.setAttribute("role", "group");
        area.setAttribute("aria-label", `Chart of ${state.track.name}: ${caption.textContent}. Arrow keys walk through the intervals.`);
        keys.setAttribute("aria-label", "Values");
        const one = { kind, state, view: { area, keys, at: null }, plot: null };
        area.addEventListener("keydown", walk(one));
        area.addEventListener("focus", () => keys.setAttribute("aria-live", "polite"));
        area.addEventListener("blur", () => { keys.removeAttribute("aria-live"); one.view.at = null; tell(kind, state, one.view); });
        figure.append(caption, area, keys);
        plots.append(figure);
        shown.push(one);
      }
    }
    for (const one of shown) makePlot(one);
  };

  let isAsking = false;
  const load = async () => {
    if (isAsking) return;
    isAsking = true;
    try {
      const answer = await fetch(place.dataset.from, { headers: { Accept: "application/json" }, credentials: "same-origin" });
      if (!answer.ok) throw new Error(String(answer.status));
      build(await answer.json());
      place.dataset.state = "shown";
    } catch {
      /* The next interval, or the next load of the page, tries again; the tables are there. */
      place.dataset.state = "failed";
    } finally {
      isAsking = false;
    }
  };
  const take = (news) => {
    if (!states || states.length !== news.metrics.length) { load(); return; }
    for (const [number, fresh] of news.metrics.entries()) {
      const state = states[number], { track } = state, last = track.at.at(-1), at = fresh.at[0];
      if (track.name !== fresh.name) { load(); return; }
      state.marks = news.marks;
      if (at !== undefined && at !== last) {
        if (fresh.before !== (last ?? null) || track.at.length > KEPT) { load(); return; }
        for (const column of COLUMNS) track[column].push(fresh[column][0]);
      } else if (at !== undefined) for (const column of COLUMNS) track[column][track.at.length - 1] = fresh[column][0];
      track.lines = fresh.lines;
      refresh(state);
    }
  };
  const stream = document.getElementById("stream");
  if (stream) stream.addEventListener("charts", (event) => take(JSON.parse(event.detail.data)));

  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; /* a phone's bars come and go */
    width = innerWidth;
    for (const one of shown) if (one.plot) one.plot.setSize({ width: Math.max(120, one.view.area.clientWidth), height: HEIGHT });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const one of shown) makePlot(one); });
  load();
})();
