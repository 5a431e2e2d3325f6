// The explorer: four views of one model. Every state is in the part of the address behind '#', which no server sees.

const PAUSE = 250; // milliseconds without a key before a text is sent
const COLOURS = ["#2f55c9", "#1a7f4b", "#b3401f", "#8a4fbf", "#b08900", "#0f8a9d", "#c2378a", "#5b7d1e"];
const hue = (token) => [...token].reduce((sum, letter) => (31 * sum + letter.codePointAt(0)) % 360, 0);
const VIEWS = ["read", "compare", "search", "map"];
const panel = (view) => document.getElementById(view);
const form = (view) => panel(view).querySelector("form");
const result = (view) => panel(view).querySelector(".result");

// ---- the server

let server = null; // its answer to /info, once a view has waited for described()

class Refused extends Error {}

async function call(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const key = sessionStorage.getItem("key");
  if (key && !/^[ -~]*$/.test(key)) { // fetch sends no such header, or another one than the server expects
    sessionStorage.removeItem("key");
    await askForKey(true);
    return call(path, body, signal);
  }
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = body === undefined ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?");
  }
  if (response.status === 401) {
    await askForKey(Boolean(key));
    return call(path, body, signal);
  }
  const content = await response.json().catch(() => null); // a proxy in between may answer with a page
  if (!response.ok || content === null) throw new Refused(content?.error ?? `The server gives no usable answer (status ${response.status}).`);
  return content;
}

let asking = null; // one dialog for all requests that wait for the key

function askForKey(refused) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = document.getElementById("key");
    const input = dialog.querySelector("input");
    document.getElementById("key-refused").hidden = !refused;
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (dialog.returnValue === "use") {
        sessionStorage.setItem("key", input.value);
        resolve();
      } else reject(new Refused("The server needs a key. Reload the page to enter it."));
      input.value = "";
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

// ---- the address bar

function fields(view) {
  return [...form(view).elements].filter((field) => field.name);
}

function readAddress() {
  const [view, query] = location.hash.slice(1).split("?");
  const known = VIEWS.includes(view) ? view : "read";
  const values = new URLSearchParams(query ?? "");
  for (const field of fields(known)) {
    if (field.type === "checkbox") field.checked = values.has(field.name);
    else if (values.has(field.name)) field.value = values.get(field.name);
    else if (field.tagName === "SELECT") field.selectedIndex = 0;
    else field.value = field.defaultValue;
  }
  return known;
}

function writeAddress(view, push = false) {
  const values = new URLSearchParams();
  for (const field of fields(view)) {
    if (field.type === "checkbox") field.checked && values.set(field.name, "1");
    else if (field.value && field.value !== field.defaultValue) values.set(field.name, field.value);
  }
  const address = `#${view}${values.size ? `?${values}` : ""}`;
  if (address !== location.hash) history[push ? "pushState" : "replaceState"](null, "", address);
}

// ---- elements

function element(tag, attributes = {}, ...children) {
  const made = document.createElementNS(/^(svg|circle|title)$/.test(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") for (const [property, setting] of Object.entries(value)) made.style.setProperty(property, setting);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const message = (text, kind = "") => element("p", { class: `message ${kind}` }, text);
const visible = (token) => token.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥");

function tokenList(tokens, weight, tint) {
  if (!tokens.length) return element("p", { class: "muted" }, "none");
  const most = Math.max(...tokens.map((token) => Math.abs(weight(token))), 1e-12);
  return element("ol", { class: "tokens" }, ...tokens.map((token) =>
    element("li", { class: tint(token), style: { "--share": `${(100 * Math.abs(weight(token))) / most}%` } },
      element("span", {}, visible(token.token)), element("span", {}, weight(token).toPrecision(3)))));
}

const explained = (tokens) => {
  const list = (title, literal) => [element("h3", {}, title),
    tokenList(tokens.filter((token) => token.literal === literal), (token) => token.weight, () => (literal ? "in-text" : "beyond"))];
  return [...list("words of the text", true), ...list("beyond the text", false)];
};
const column = (title, ...content) => element("section", {}, element("h2", {}, title), ...content);
const columns = (...content) => element("div", { class: "columns-of-tokens" }, ...content);
const parts = (tokens, tint = "in-text", scale = 1) => tokenList(tokens, (token) => scale * token.part, () => tint);
const MILLION = 1e6; // one token of a vocabulary has a small part of a cosine

// ---- views: each gives the elements of its result, or a sentence about what to type

const show = {
  async read(values, signal) {
    if (!values.text.trim()) return "Type a text: its aligned tokens appear here while you type.";
    const instructions = [values.first, values.second].map((text) => text.trim()).filter(Boolean);
    const body = { text: values.text, filtered: values.filtered, against: values.against && Boolean(server.against), instructions };
    const read = await call("explain", body, signal);
    const made = [column("What the vector says", ...explained(read.tokens))];
    if (read.against) made.push(column(`Plain backbone, ${server.against}`, ...explained(read.against)));
    for (const under of read.instructions) {
      made.push(column(`Under “${under.instruction}”`, ...explained(under.tokens),
        element("h3", {}, "risen"), parts(under.rose), element("h3", {}, "fallen"), parts(under.fell, "beyond")));
    }
    return [columns(...made)];
  },

  async compare(values, signal) {
    if (!values.first.trim() || !values.second.trim()) return "Type two texts: the tokens that pull them together and apart appear here.";
    const read = await call("compare", { first: values.first, second: values.second, filtered: values.filtered }, signal);
    return [
      element("p", {}, element("span", { class: "score" }, read.dense_cosine.toFixed(3)), " cosine of the dense vectors, ",
        element("span", { class: "score" }, read.cosine.toFixed(3)), " of the token logits"),
      columns(column("Pull together", parts(read.alike, "in-text", MILLION)), column("Only in the first", parts(read.in_first, "beyond", MILLION)),
        column("Only in the second", parts(read.in_second, "beyond", MILLION))),
      element("p", { class: "muted" }, "Numbers are millionths: parts of the cosine of the logits on the left, of its distance from 1 on the right."),
    ];
  },

  async search(values, signal) {
    if (!server.indexes.length) return "This server has no index. Start it with --index FOLDER.";
    if (!values.query.trim()) return "Type a query: the documents that it finds appear here, with the tokens that found them.";
    const weights = Object.fromEntries(["bm25", "sparse", "dense"].map((name) => [name, Math.max(0, Number(values[name]) || 0)]));
    const body = { query: values.query, indexes: [values.index], mode: values.mode, weights: values.mode === "hybrid" ? weights : {} };
    const asked = [call("search", body, signal)];
    const beside = values.beside && values.mode !== "dense";
    if (beside) asked.push(call("search", { ...body, inference_free: true }, signal));
    const answers = await Promise.all(asked);
    const made = answers.map(({ results: [found] }, place) =>
      column(place ? "The words of the query alone" : beside ? "With the model" : `${found.hits.length} documents`,
        ...(found.note ? [message(found.note)] : []), ...(found.hits.length ? found.hits.map(hit) : [message("Nothing was found.")])));
    return [element("div", { class: beside ? "pair" : "" }, ...made)];
  },

  async map(values, signal) {
    if (!server.indexes.length) return "This server has no index. Start it with --index FOLDER.";
    const map = await call(`map?index=${encodeURIComponent(values.index)}`, undefined, signal);
    if (!map.points.length) return "The index has no documents yet.";
    return plot(map, values.index);
  },
};

function hit(found) {
  const tokens = found.matches.map((match) => match.token.trim()).filter((token) => token.length > 1);
  const most = Math.max(...found.matches.map((match) => match.amount), 1e-12);
  const reasons = found.matches.slice(0, 14).map((match) =>
    element("li", { class: "swatch in-text", title: `${match.field}: ${match.amount.toPrecision(3)}`, style: { "--share": `${(100 * match.amount) / most}%` } },
      `${visible(match.token)} ${match.field === "bm25" ? "word" : match.field}`));
  if (found.dense) reasons.push(element("li", { class: "swatch beyond" }, `dense ${found.dense.toPrecision(3)}`));
  return element("article", { class: "hit" },
    element("h3", {}, element("span", {}, found.title || found.id), element("span", { class: "muted" }, found.score.toPrecision(4))),
    element("p", {}, ...highlighted(found.snippet, tokens)),
    element("ul", { class: "reasons", "aria-label": "what found it" }, ...reasons));
}

function highlighted(text, tokens) {
  if (!tokens.length) return [text];
  const escaped = tokens.map((token) => token.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).sort((a, b) => b.length - a.length);
  const found = new RegExp(`((?<![\\p{L}\\p{N}])(?:${escaped.join("|")}))`, "giu");
  return text.split(found).map((piece, place) => (place % 2 ? element("mark", {}, piece) : piece));
}

function plot(map, index) {
  const [width, height, margin] = [1000, 460, 20];
  const scale = (value, [low, high], size) => margin + ((value - low) / (high - low || 1)) * (size - 2 * margin);
  const range = (axis) => { const all = map.points.map((point) => point[axis]); return [Math.min(...all), Math.max(...all)]; };
  const [rangeX, rangeY] = [range("x"), range("y")];
  const counts = new Map();
  for (const point of map.points) if (point.token) counts.set(point.token, (counts.get(point.token) ?? 0) + 1);
  const frequent = [...counts].sort((a, b) => b[1] - a[1]).slice(0, COLOURS.length).map(([token]) => token);
  const colour = ({ token }) => COLOURS[frequent.indexOf(token)] ?? `hsl(${hue(token)} 35% 58%)`;
  const tip = element("div", { class: "tip", "aria-live": "polite" }, element("p", { class: "muted" }, "Point at a document, or move with the arrow keys; Enter searches near it."));
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${map.points.length} documents of ${index} on a plane` });
  const places = map.points.map((point) => [scale(point.x, rangeX, width), scale(point.y, rangeY, height)]);
  const near = (point) => {
    const search = form("search");
    search.elements.query.value = [point.title, point.text].filter(Boolean).join(" ");
    search.elements.index.value = index;
    select("search", true);
  };
  map.points.forEach((point, number) => {
    const name = `${point.title || point.id}${point.token ? `, ${point.token.trim()}` : ""}`;
    const circle = element("circle", { cx: places[number][0], cy: places[number][1], r: 5, fill: colour(point), role: "button", tabindex: number ? -1 : 0, "aria-label": name });
    const tell = () => tip.replaceChildren(element("h2", {}, name), element("p", {}, point.text));
    circle.addEventListener("mouseenter", tell);
    circle.addEventListener("focus", tell);
    circle.addEventListener("click", () => near(point));
    circle.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); near(point); }
      const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!direction) return;
      event.preventDefault();
      const next = neighbour(places, number, direction);
      if (next === undefined) return;
      circle.setAttribute("tabindex", -1);
      svg.children[next].setAttribute("tabindex", 0);
      svg.children[next].focus();
    });
    svg.append(circle);
  });
  const legend = element("ul", { class: "legend" }, ...frequent.map((token, place) => element("li", { style: { "--colour": COLOURS[place] } }, visible(token.trim() || token))));
  const note = map.documents > map.points.length ? `${map.points.length} of ${map.documents} documents` : `${map.documents} documents`;
  return [element("p", { class: "muted" }, `${note}, coloured by their strongest token; the most frequent ones are named`), legend, element("div", { class: "plot" }, svg), tip];
}

function neighbour(places, from, [dx, dy]) {
  // The nearest point within 45 degrees of the direction.
  let best, least = Infinity;
  places.forEach(([x, y], number) => {
    const [ahead, aside] = [(x - places[from][0]) * dx + (y - places[from][1]) * dy, Math.abs((x - places[from][0]) * dy) + Math.abs((y - places[from][1]) * dx)];
    const distance = ahead + 2 * aside;
    if (number !== from && ahead > 0 && aside <= ahead && distance < least) [best, least] = [number, distance];
  });
  return best;
}

// ---- work as the user types

const running = {};

async function refresh(view) {
  running[view]?.abort();
  const controller = (running[view] = new AbortController());
  const place = result(view);
  place.classList.add("busy");
  place.setAttribute("aria-busy", "true");
  if (!place.children.length) place.replaceChildren(message("Working …"));
  try {
    await described();
    const values = Object.fromEntries(fields(view).map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value]));
    const content = await show[view](values, controller.signal);
    place.replaceChildren(...(typeof content === "string" ? [message(content)] : content));
  } catch (error) {
    if (error.name === "AbortError") return;
    place.replaceChildren(message(error instanceof Refused ? error.message : `This page failed: ${error.message}.`, "error"));
  }
  place.classList.remove("busy");
  place.removeAttribute("aria-busy");
}

function select(view, push = false) {
  for (const other of VIEWS) {
    const chosen = other === view;
    panel(other).hidden = !chosen;
    const tab = document.getElementById(`tab-${other}`);
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  writeAddress(view, push);
  document.title = `text2token: ${view}`;
  return refresh(view);
}

function install() {
  VIEWS.forEach((view, place) => {
    let timer;
    const changed = () => { clearTimeout(timer); timer = setTimeout(() => { writeAddress(view); refresh(view); }, PAUSE); };
    form(view).addEventListener("input", changed);
    form(view).addEventListener("submit", (event) => { event.preventDefault(); changed(); });
    const tab = document.getElementById(`tab-${view}`);
    tab.addEventListener("click", () => select(view, true));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = VIEWS[(place + step + VIEWS.length) % VIEWS.length];
      select(next, true);
      document.getElementById(`tab-${next}`).focus();
    });
  });
  window.addEventListener("popstate", () => select(readAddress()));
  window.addEventListener("hashchange", () => select(readAddress()));
}

let describing = null; // one request for all views that wait for the description; another one after a failure

function described() {
  describing ??= describe().catch((error) => {
    describing = null;
    document.getElementById("model").replaceChildren(message(error.message, "error"));
    throw error;
  });
  return describing;
}

async function describe() {
  server = await call("info");
  document.getElementById("model").textContent = `${server.served_model_name}, ${server.dimensions} dimensions${server.indexes.length ? `, searching ${server.indexes.join(", ")}` : ""}`;
  for (const view of ["search", "map"]) {
    form(view).elements.index.replaceChildren(...server.indexes.map((name) => element("option", { value: name }, name)));
  }
  if (server.against) {
    const label = document.getElementById("against-label");
    label.hidden = false;
    label.querySelector("span").textContent = `Plain backbone (${server.against}) beside it`;
  }
}

install();
described().then(() => select(readAddress()), () => {}); // after a failure, each view tries again
