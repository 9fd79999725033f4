// Shows the latest events, newest first, however fast they come.

import { $, element, number } from "./dom.js";

const SHOWN_MAX = 200; // More than anybody reads; keeps the page light however long it stays open.
const CALM_PER_S = 10; // Above this, events are drawn together and without animation.
const DRAW_EVERY_MS = 200;
const RATE_OVER_S = 5;

let total = 0;
let waiting = [];
let arrivals = []; // When the last ones came, as many as tell calm from busy.
let totals = [0]; // At each of the last seconds.
let drawnAt = 0;
let planned = false;
let paused = false;

/** Show an event: `{ topics, id, type, data }`, or a line between events: `{ mark }`. */
export function show(one) {
  const now = performance.now();
  const calm = isCalm(now);
  if (!one.mark) total += 1;
  waiting.push({ ...one, at: new Date(), calm });
  // A page in the background is not drawn; it keeps only what it will show.
  if (waiting.length > SHOWN_MAX * 2) waiting = waiting.slice(-SHOWN_MAX);
  if (planned || paused) return;
  planned = true;
  if (calm) requestAnimationFrame(draw);
  else setTimeout(() => requestAnimationFrame(draw), Math.max(0, drawnAt + DRAW_EVERY_MS - now));
}

/** Begin an empty list. */
export function clear() {
  waiting = [];
  $("events").replaceChildren();
  $("empty").hidden = false;
}

function isCalm(now) {
  arrivals.push(now);
  if (arrivals.length > CALM_PER_S + 1) arrivals.shift();
  return arrivals.length <= CALM_PER_S || now - arrivals[0] > 1000;
}

function draw() {
  planned = false;
  if (paused) return;
  drawnAt = performance.now();
  const list = $("events");
  const fresh = waiting.slice(-SHOWN_MAX).reverse();
  waiting = [];
  while (list.children.length > SHOWN_MAX - fresh.length) list.lastChild.remove();
  list.prepend(...fresh.map((one) => (one.mark ? element("li", "mark", one.mark) : eventItem(one))));
  $("empty").hidden = list.children.length > 0;
  showTotal();
}

function eventItem({ topics, id, type, data, at, calm }) {
  const item = element("li", calm ? "fresh" : "");
  item.dataset.id = id;
  const what = element("span", "what");
  if (type !== "message") what.append(element("span", "type", type));
  what.append(...said(data));
  const made = madeAt(id) ?? at;
  const when = element("time", "when", made.toLocaleTimeString("en-GB"));
  when.dateTime = made.toISOString();
  const where = element("span", "id", "", [element("span", "topic", topics), id]);
  item.append(what, when, where);
  return item;
}

// An id that the node made says when: a UUID of version 7. Of others only the arrival is known.
function madeAt(id) {
  const found = /^urn:uuid:([0-9a-f]{8})-([0-9a-f]{4})-7/.exec(id);
  return found && new Date(parseInt(found[1] + found[2], 16));
}

function said(data) {
  const message = categoryMessage(data);
  if (!message) return [data];
  const { user_id, category_from, category_to } = message;
  return [element("span", "user", `user ${user_id}`), category_from, element("span", "arrow", "→"), category_to];
}

function categoryMessage(data) {
  if (!data.startsWith("{")) return null;
  try {
    const message = JSON.parse(data);
    return "user_id" in message && "category_to" in message ? message : null;
  } catch {
    return null;
  }
}

function showTotal() {
  $("total").textContent = number(total);
}

function showRate() {
  totals.push(total);
  if (totals.length > RATE_OVER_S + 1) totals.shift();
  $("rate").textContent = ((total - totals[0]) / (totals.length - 1)).toFixed(1);
  showTotal();
}

function pause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused && waiting.length > 0) draw();
}

$("pause").onclick = pause;
setInterval(showRate, 1000);
