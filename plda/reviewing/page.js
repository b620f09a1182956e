// The page of a review. The server holds the decisions; the page shows them and sends new ones.
"use strict";
const PAGE = 48; // thumbnails per page
const FILTERS = ["all", "undecided", "decided"];
const KEYS = {
  a: "accept", r: "reject", w: "wrong_class", t: "tags", c: "clear", u: "undo", m: "mask", f: "filter",
  ArrowLeft: "previous", ArrowRight: "next",
};
const WORDS = { accept: "accepted", reject: "rejected", wrong_class: "wrong class", tags: "tags corrected" };
const $ = id => document.getElementById(id);

let classes = {}; // id: [name, colour]
let images = []; // undecided images first, each part worst first; this order stays until the page is loaded again
let decisions = {}; // image: {kind, tags}
let filter = "all";
let current = 0; // place in images
let page = 0; // of thumbnails
let version = null; // of the mask that is shown; null while none is
let shows = 0; // number of calls of show
let busy = false; // whether a decision is being sent
let thumbnails = new Map(); // place: element of the thumbnails shown

const decided = place => images[place].image in decisions;
const word = place => decided(place) ? WORDS[decisions[images[place].image].kind] : "undecided";
const listed = () => [...images.keys()].filter(place => filter === "all" || decided(place) === (filter === "decided"));
const percent = value => value === null ? "unknown" : `${value.toFixed(1)} %`;

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function address(path, query) {
  return `${path}?${new URLSearchParams(query)}`;
}

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: nothing is saved; start `plda review` again");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(typeof content.detail === "string" ? content.detail : JSON.stringify(content));
  return content;
}

// ---- showing

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function draw() {
  const { image, tags, expected } = images[current];
  const decision = decisions[image];
  $("name").textContent = image;
  $("tags").textContent = tags.join(", ") || "none: the image shows background only";
  $("expected").textContent = percent(expected);
  const corrected = decision && decision.kind === "tags" ? `: ${decision.tags.join(", ") || "none"}` : "";
  $("decision").textContent = word(current) + corrected;
  const all = images.length, done = images.filter((_, place) => decided(place)).length;
  const kinds = Object.entries(WORDS).map(([kind, text]) =>
    `${images.filter(({ image }) => decisions[image]?.kind === kind).length} ${text}`);
  $("counts").textContent = `${done} of ${all} decided (${kinds.join(", ")}).`;
  const numbers = { all, undecided: all - done, decided: done };
  document.querySelectorAll("[data-filter]").forEach(button => {
    const name = button.dataset.filter;
    button.textContent = `${name[0].toUpperCase()}${name.slice(1)} ${numbers[name]}`;
    button.setAttribute("aria-pressed", String(name === filter));
  });
  drawThumbnails();
}

function drawThumbnails() {
  const list = listed(), pages = Math.max(1, Math.ceil(list.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const shown = list.slice(page * PAGE, (page + 1) * PAGE);
  thumbnails = new Map(shown.map(place => [place, thumbnails.get(place) || thumbnail(place)]));
  const items = [...thumbnails.values()], before = [...$("thumbnails").children];
  if (items.length !== before.length || items.some((item, i) => item !== before[i])) $("thumbnails").replaceChildren(...items);
  thumbnails.forEach((item, place) => {
    item.firstChild.setAttribute("aria-current", String(place === current));
    item.querySelector("span").textContent =
      decided(place) || images[place].expected === null ? word(place) : percent(images[place].expected);
  });
  $("place").textContent = `Page ${page + 1} of ${pages}`;
  document.querySelector("[data-do=page_back]").disabled = page === 0;
  document.querySelector("[data-do=page_on]").disabled = page === pages - 1;
}

function thumbnail(place) {
  const { image } = images[place];
  const picture = element("img", { loading: "lazy", alt: image, src: address("thumbnail", { image }) });
  const button = element("button", { type: "button" }, picture, element("span", {}));
  button.addEventListener("click", () => show(place));
  return element("li", {}, button);
}

async function show(place) {
  const { image } = images[current = place], call = ++shows;
  const at = listed().indexOf(place);
  if (at >= 0) page = Math.floor(at / PAGE);
  version = null;
  $("picture").classList.add("loading");
  $("legend").replaceChildren();
  showMask(true);
  draw();
  try {
    const mask = await ask(address("mask", { image }));
    if (call !== shows) return;
    $("photo").src = address("photo", { image });
    $("photo").alt = `photo ${image}`;
    $("overlay").src = address("overlay", { image, version: mask.version });
    const parts = mask.shares.map(([id, share]) => [...classes[id] || [`id ${id}`, "#fff"], share]);
    $("overlay").alt = `mask: ${parts.map(([name, , share]) => `${name} ${percent(share)}`).join(", ")}`;
    await Promise.all([$("photo").decode(), $("overlay").decode()]);
    if (call !== shows) return;
    $("legend").replaceChildren(...parts.map(([name, colour, share]) => {
      const swatch = element("span", { className: "swatch" });
      swatch.style.background = name === classes[0][0] ? "none" : colour;
      return element("li", {}, swatch, `${name} ${percent(share)}`);
    }));
    version = mask.version;
    $("picture").classList.remove("loading");
  } catch (error) {
    if (call === shows) say(`${image}: the picture cannot be shown: ${error.message}`, true);
  }
}

function showMask(on) {
  $("picture").classList.toggle("bare", !on);
  document.querySelector("[data-do=mask]").setAttribute("aria-pressed", String(on));
}

// ---- doing

function neighbour(forward) {
  const list = listed();
  return forward ? list.find(place => place > current) : list.findLast(place => place < current);
}

function step(forward) {
  const next = neighbour(forward);
  if (next === undefined) return say(`This is the ${forward ? "last" : "first"} image (${filter}).`);
  say(`${images[next].image}: ${word(next)}.`);
  return show(next);
}

// Send a change; other changes are refused until the server has answered.
async function change(send) {
  if (busy) return;
  busy = true;
  try {
    await send();
  } catch (error) {
    say(`Not done: ${error.message}`, true);
  } finally {
    busy = false;
  }
}

function decide(kind, tags = []) {
  const place = current, { image } = images[place];
  if (kind === "accept" && !version) return say("Not accepted: the mask is not shown yet.", true);
  return change(async () => {
    decisions = await ask("decisions", { image, kind, tags, version: version || "" });
    const next = kind && place === current ? neighbour(true) : undefined;
    say(`${image}: ${word(place)}. ${next === undefined ? "" : `Now ${images[next].image}.`}`);
    show(next ?? current);
  });
}

function undo() {
  return change(async () => {
    const done = await ask("undo", {});
    decisions = done.decisions;
    const place = images.findIndex(({ image }) => image === done.image);
    say(`Undone. ${done.image}: ${word(place)}.`);
    show(place);
  });
}

function edit() {
  const { image, tags } = images[current], decision = decisions[image];
  const chosen = decision && decision.kind === "tags" ? decision.tags : tags;
  const names = Object.entries(classes).filter(([id]) => id !== "0" && id !== "255").map(([, [name]]) => name);
  $("title").textContent = `Tags of ${image}`;
  $("boxes").replaceChildren(...names.map(name =>
    element("label", {}, element("input", { type: "checkbox", value: name, checked: chosen.includes(name) }), name)));
  $("editor").showModal();
  $("boxes").querySelector("input").focus();
}

const DO = {
  accept: () => decide("accept"),
  reject: () => decide("reject"),
  wrong_class: () => decide("wrong_class"),
  tags: edit,
  clear: () => decide(null),
  undo,
  previous: () => step(false),
  next: () => step(true),
  mask: () => showMask($("picture").classList.contains("bare")),
  filter: () => choose(FILTERS[(FILTERS.indexOf(filter) + 1) % FILTERS.length]),
  page_back: () => { page -= 1; drawThumbnails(); },
  page_on: () => { page += 1; drawThumbnails(); },
};

function choose(name) {
  filter = name;
  const list = listed();
  say(`${list.length} of ${images.length} images are listed (${name}).`);
  if (list.length && !list.includes(current)) return show(list[0]);
  page = Math.max(0, Math.floor(list.indexOf(current) / PAGE));
  draw();
}

document.addEventListener("keydown", event => {
  if ($("editor").open || event.ctrlKey || event.altKey || event.metaKey) return;
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name || !images.length) return;
  event.preventDefault();
  if (event.repeat && !["next", "previous"].includes(name)) return; // a key that is held decides once
  DO[name]();
});
document.querySelectorAll("[data-do]").forEach(button => button.addEventListener("click", () => DO[button.dataset.do]()));
document.querySelectorAll("[data-filter]").forEach(button => button.addEventListener("click", () => choose(button.dataset.filter)));
$("cancel").addEventListener("click", () => $("editor").close());
$("editor").querySelector("form").addEventListener("submit", () =>
  decide("tags", [...$("boxes").querySelectorAll(":checked")].map(box => box.value)));
// another tab, or another program, may have changed the decisions
window.addEventListener("focus", async () => {
  if (busy || !images.length) return;
  const before = decisions;
  try {
    const found = await ask("decisions");
    if (busy || decisions !== before) return; // a decision of this page is newer
    decisions = found;
    draw();
  } catch (error) {
    say(error.message, true);
  }
});

(async () => {
  try {
    const all = await ask("images");
    ({ classes, decisions } = all);
    images = [...all.images].sort((a, b) => (a.image in decisions) - (b.image in decisions)); // a stable sort
    await show(0);
  } catch (error) {
    say(error.message, true);
  }
})();
