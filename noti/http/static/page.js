// Shows the live stream and the state of the node that serves it.
// Reads two things of its own origin: the event stream, and /status once in a while. Loads nothing else.
"use strict";

const EVENTS_SHOWN_MAX = 60; // More than anybody reads; keeps the page light however long it stays open.
const STATUS_EVERY_MS = 1500;
const SILENCE_MAX_MS = 45000; // Without an answer from /status for so long the stream is opened anew.
const NOTICE_MS = 8000;
const CONFIRM_MS = 700; // A stream that was reopened and still stands after this is back.
const BACKOFF_MS = { first: 500, max: 5000 };

const $ = (id) => document.getElementById(id);

const stream = {
  source: null,
  lastId: "",
  wasOpen: false,
  lostAt: 0, // When the connection was lost that is not confirmed to be back; 0 when all is well.
  reopenedAt: 0,
  caughtUp: 0, // Events since then.
  marked: false,
  gap: false,
  confirmTimer: 0,
  backoffMs: BACKOFF_MS.first,
  timer: 0,
};
let total = 0;
let arrivals = [];
let waiting = [];
let drawing = false;
let noticeTimer = 0;

// The stream

function connect() {
  clearTimeout(stream.timer);
  stream.source?.close();
  const query = new URLSearchParams({ topic: "*", cursor: "1" });
  // A new EventSource forgets the cursor of the old one.
  if (stream.lastId) query.set("lastEventID", stream.lastId);
  const source = new EventSource(`/.well-known/mercure?${query}`);
  stream.source = source;
  source.onopen = opened;
  source.onmessage = arrived;
  source.addEventListener("noti-gap", toldOfGap);
  source.onerror = () => {
    lost();
    // EventSource comes back by itself after a broken connection, but never after a rejected one.
    if (source.readyState === EventSource.CLOSED) {
      stream.timer = setTimeout(connect, stream.backoffMs * (0.5 + Math.random()));
      stream.backoffMs = Math.min(stream.backoffMs * 2, BACKOFF_MS.max);
    }
  };
}

function opened() {
  stream.backoffMs = BACKOFF_MS.first;
  stream.wasOpen = true;
  showConnection("open", "live");
  if (stream.lostAt) {
    stream.reopenedAt = performance.now();
    // What was missed comes right behind the first bytes; a node without room would hang up again.
    stream.confirmTimer = setTimeout(confirmResumed, CONFIRM_MS);
  }
}

function lost() {
  clearTimeout(stream.confirmTimer);
  Object.assign(stream, { reopenedAt: 0, caughtUp: 0, marked: false });
  if (stream.wasOpen && !stream.lostAt) stream.lostAt = performance.now();
  showConnection("connecting", stream.wasOpen ? "reconnecting …" : "connecting …");
}

function markResumed() {
  if (!stream.reopenedAt || stream.marked) return;
  stream.marked = true;
  show({ mark: `reconnected after ${secondsAway()} s` });
}

function confirmResumed() {
  markResumed();
  const count = stream.caughtUp === 1 ? "1 event" : `${stream.caughtUp} events`;
  if (!stream.gap) {
    showNotice(`Reconnected after ${secondsAway()} s: resumed with ${count}, nothing missed.`);
  }
  Object.assign(stream, { lostAt: 0, reopenedAt: 0, caughtUp: 0, marked: false, gap: false });
}

function secondsAway() {
  return ((stream.reopenedAt - stream.lostAt) / 1000).toFixed(1);
}

function arrived(message) {
  if (message.lastEventId) stream.lastId = message.lastEventId;
  markResumed();
  total += 1;
  stream.caughtUp += 1;
  arrivals.push(performance.now());
  show({ id: message.lastEventId, data: message.data, at: new Date() });
}

function toldOfGap() {
  markResumed();
  stream.gap = true;
  show({ mark: "gap: older events are no longer in history" });
  showNotice("There is a gap: some events happened while this page was away and are no longer in history. " +
    "What is left of it follows.", true);
}

// The list of events

function show(one) {
  waiting.push(one);
  // A page in the background is not drawn; it keeps only what it will show.
  if (waiting.length > EVENTS_SHOWN_MAX * 2) waiting = waiting.slice(-EVENTS_SHOWN_MAX);
  if (!drawing) requestAnimationFrame(draw);
  drawing = true;
}

function draw() {
  const list = $("events");
  const fresh = waiting.slice(-EVENTS_SHOWN_MAX);
  waiting = [];
  drawing = false;
  for (const one of fresh) list.prepend(one.mark ? markItem(one) : eventItem(one));
  while (list.children.length > EVENTS_SHOWN_MAX) list.lastChild.remove();
  $("empty").hidden = list.children.length > 0;
  $("total").textContent = total.toLocaleString("en");
}

function markItem({ mark }) {
  return element("li", "mark", mark);
}

function eventItem({ id, data, at }) {
  const item = element("li", "fresh");
  item.dataset.id = id;
  const what = element("span", "what");
  const message = parse(data);
  if (message) {
    what.append(
      element("span", "user", `user ${message.user_id}`),
      message.category_from,
      element("span", "arrow", "→"),
      message.category_to,
    );
  } else {
    what.textContent = data;
  }
  const when = element("time", "when", at.toLocaleTimeString("en-GB"));
  when.dateTime = at.toISOString();
  item.append(what, when, element("span", "id", id));
  return item;
}

function parse(data) {
  try {
    const message = JSON.parse(data);
    return message && "user_id" in message && "category_to" in message ? message : null;
  } catch {
    return null;
  }
}

// The node and its cluster

async function askStatus() {
  try {
    const answer = await fetch("/status", { signal: AbortSignal.timeout(STATUS_EVERY_MS * 2) });
    // Operators may have an address of their own, and then this page is told nothing.
    showStatus(answer.status === 404 ? {} : await answer.json());
    document.body.classList.remove("stale");
    askStatus.answeredAt = performance.now();
  } catch {
    document.body.classList.add("stale");
    $("term").textContent = "not answering";
  }
  const silentMs = performance.now() - (askStatus.answeredAt ?? 0);
  if (askStatus.answeredAt && silentMs > SILENCE_MAX_MS && stream.source.readyState === EventSource.OPEN) {
    askStatus.answeredAt = performance.now();
    lost();
    connect();
  }
  setTimeout(askStatus, STATUS_EVERY_MS);
}

function showStatus(status) {
  const node = status.node ?? {};
  $("node").textContent = node.name ?? location.host;
  $("node-label").textContent = `serves this page${status.role ? `, ${status.role}` : ""}`;
  $("clients").textContent = status.clients ?? "–";
  $("term").textContent = status.term ? `term ${status.term}` : "";
  document.title = node.name ? `${node.name} · noti` : "noti";
  showMembers(status, node);
  showFacts(status);
}

function showMembers(status, node) {
  const members = Array.isArray(status.members) ? status.members : [];
  $("members-empty").hidden = members.length > 0;
  $("members-empty").textContent = "This node sees no members yet.";
  $("members").replaceChildren(...members.map((member) => {
    const item = element("li");
    const state = member.state ?? "unknown";
    const isLeader = member.role === "leader" || (status.leader && [member.name, member.node_id].includes(status.leader));
    const isHere = member.node_id ? member.node_id === node.node_id : member.name === node.name;
    item.dataset.health = state === "failed" ? "dead" : state;
    const name = element("span", "name", member.name ?? "?");
    if (isHere) name.append(" ", element("span", "here", "you are here"));
    const role = isLeader ? "leader" : member.role ?? "member";
    const detail = element("span", "detail", `${state} · `);
    if (member.http && !isHere) {
      const link = element("a", "", member.http);
      link.href = `${location.protocol}//${member.http}/`;
      detail.append(link);
    } else {
      detail.append(member.http || member.rpc || "");
    }
    item.append(element("span", "dot"), name, element("span", `role ${role}`, role), detail);
    return item;
  }));
}

function showFacts(status) {
  const source = status.source ?? {};
  const store = status.store ?? {};
  const facts = [
    ["source", [source.state ?? "–", source.error].filter(Boolean).join(": ")],
    ["committed", number(status.commit)],
    ["applied here", number(status.applied)],
    ["in history", store.last_seq ? `${number(store.first_seq)} to ${number(store.last_seq)}` : "–"],
  ];
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

// Small things

function showConnection(state, text) {
  $("connection").dataset.state = state;
  $("connection-text").textContent = text;
}

function showNotice(text, isGap = false) {
  const notice = $("notice");
  notice.textContent = text;
  notice.classList.toggle("gap", isGap);
  notice.hidden = false;
  clearTimeout(noticeTimer);
  if (!isGap) noticeTimer = setTimeout(() => { notice.hidden = true; }, NOTICE_MS);
}

function showRate() {
  const now = performance.now();
  arrivals = arrivals.filter((at) => now - at < 5000);
  $("rate").textContent = (arrivals.length / 5).toFixed(1);
}

function number(value) {
  return Number.isFinite(value) ? value.toLocaleString("en") : "–";
}

function element(name, className = "", text = "") {
  const one = document.createElement(name);
  if (className) one.className = className;
  if (text) one.textContent = text;
  return one;
}

$("curl").textContent = `curl -N ${location.origin}/category`;
setInterval(showRate, 1000);
connect();
askStatus();
