// The page to try things, for everybody: follows what is asked for, and publishes. It loads and asks
// nothing but its own origin.

import { $ } from "./dom.js";
import { clear, show } from "./events.js";
import { Noti } from "./noti.js";
import { watchSubscribers } from "./subscribers.js";

const HUB = "/.well-known/mercure";
const LAST = 20; // Events of history that a page shows when it is opened.
const NOTICE_MS = 8000;
const CONFIRM_MS = 700; // A stream that was reopened and still stands after this is back.
const TOKEN_KEY = "noti-token"; // In sessionStorage: gone with the tab.

const away = { since: 0, back: 0, events: 0, marked: false, gap: false, timer: 0 };
let noti = null;
let subscribed = "";
let wasOpen = false;
let noticeTimer = 0;

// The stream

function follow() {
  noti?.close();
  clearTimeout(away.timer);
  Object.assign(away, { since: 0, back: 0, events: 0, marked: false, gap: false });
  wasOpen = false;
  const topics = $("topics").value.split(/\s+/).filter(Boolean);
  const dialect = $("dialect").value;
  subscribed = topics.join(" ");
  const named = { topic: "topics", match: "match", match_urlpattern: "matchUrlPattern" }[dialect];
  noti = new Noti([location.origin], {
    [named]: topics,
    token: tokenNow(),
    websocket: $("transport").value === "websocket",
    last: LAST,
    onevent: arrived,
    ongap: toldOfGap,
    onstate: changed,
  });
  showConnection("connecting", "connecting …");
  $("curl").textContent = curlOf(dialect, topics);
}

function curlOf(dialect, topics) {
  const query = new URLSearchParams(topics.map((topic) => [dialect, topic]));
  const token = tokenNow() ? " -H 'Authorization: Bearer …'" : "";
  return `curl -N${token} '${location.origin}${HUB}?${query}'`;
}

function changed({ state, reason }) {
  clearTimeout(away.timer);
  if (state === "open") {
    wasOpen = true;
    showConnection("open", "live");
    if (!away.since) return;
    away.back = performance.now();
    // What was missed comes right behind the first bytes; a node without room would hang up again.
    away.timer = setTimeout(confirmResumed, CONFIRM_MS);
    return;
  }
  if (wasOpen && !away.since) away.since = performance.now();
  Object.assign(away, { back: 0, events: 0, marked: false });
  if (state === "rejected") {
    showConnection("rejected", "rejected");
    showNotice(`The node rejected this subscription: ${reason}`, true);
  } else {
    showConnection("connecting", wasOpen ? "reconnecting …" : "connecting …");
  }
}

function arrived({ id, type, data }) {
  markResumed();
  away.events += 1;
  show({ topics: subscribed, id, type, data });
}

function toldOfGap() {
  markResumed();
  away.gap = true;
  show({ mark: "gap: older events are no longer in history" });
  showNotice("There is a gap: some events happened while this page was away and are no longer in history. " +
    "What is left of it follows.", true);
}

function markResumed() {
  if (!away.back || away.marked) return;
  away.marked = true;
  show({ mark: `reconnected after ${secondsAway()} s` });
}

function confirmResumed() {
  markResumed();
  const count = away.events === 1 ? "1 event" : `${away.events} events`;
  if (!away.gap) showNotice(`Reconnected after ${secondsAway()} s: resumed with ${count}, nothing missed.`);
  Object.assign(away, { since: 0, back: 0, events: 0, marked: false, gap: false });
}

function secondsAway() {
  return ((away.back - away.since) / 1000).toFixed(1);
}

// Tokens and publishing

function tokenNow() {
  return $("token").value.trim();
}

function headersNow() {
  return tokenNow() ? { Authorization: `Bearer ${tokenNow()}` } : {};
}

async function publish(submitted) {
  submitted.preventDefault();
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData($("publish"))) if (value || name === "data") fields.append(name, value);
  tell("publishing …");
  try {
    const answer = await fetch(HUB, { method: "POST", body: fields, headers: headersNow() });
    const text = (await answer.text()).trim();
    if (answer.ok) tell(`committed as ${text}`);
    else tell(`${answer.status}: ${text}${answer.status === 401 ? " Paste a token above that may publish this." : ""}`, true);
  } catch {
    tell("The node does not answer. Publish again with the same id: it is shown once.", true);
  }
}

function tell(text, isBad = false) {
  $("published").textContent = text;
  $("published").classList.toggle("bad", isBad);
}

// Small things

function showConnection(state, text) {
  $("connection").dataset.state = state;
  $("connection-text").textContent = text;
}

function showNotice(text, stays = false) {
  const notice = $("notice");
  notice.textContent = text;
  notice.classList.toggle("gap", stays);
  notice.hidden = false;
  clearTimeout(noticeTimer);
  if (!stays) noticeTimer = setTimeout(() => { notice.hidden = true; }, NOTICE_MS);
}

$("token").value = sessionStorage.getItem(TOKEN_KEY) ?? "";
$("subscription").onsubmit = (submitted) => {
  submitted.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, tokenNow());
  $("notice").hidden = true;
  clear();
  follow();
};
$("publish").onsubmit = publish;
$("node").textContent = location.host;
follow();
watchSubscribers(headersNow);
