// Shows the node that serves the page, the others, and who is subscribed.

import { $, element, number } from "./dom.js";

const STATUS_EVERY_MS = 1500;
const SUBSCRIPTIONS = "/.well-known/mercure/subscriptions";
const SUBSCRIPTIONS_EVERY_MS = 3000;
const SUBSCRIPTIONS_SHOWN_MAX = 50;

let others = []; // The nodes that were last seen alive, besides the one that serves this page.
let answeredAt = 0;
let hasStatus = true; // Operators may have an address of their own, and then this page is told nothing.

/** Ask the node for its state from now on. */
export async function watchStatus() {
  try {
    const answer = await fetch("/status", { signal: AbortSignal.timeout(STATUS_EVERY_MS * 2) });
    hasStatus = answer.status !== 404;
    showStatus(hasStatus ? await answer.json() : {});
    answeredAt = performance.now();
    document.body.classList.remove("stale");
    $("elsewhere").hidden = true;
  } catch {
    document.body.classList.add("stale");
    $("term").textContent = "not answering";
    showOthers();
  }
  setTimeout(watchStatus, STATUS_EVERY_MS);
}

function showOthers() {
  const box = $("elsewhere");
  const wasHidden = box.hidden;
  box.hidden = false;
  const seconds = Math.round((performance.now() - answeredAt) / 1000);
  if (others.length === 0) {
    box.textContent = hasStatus
      ? "This node does not answer, and it knew of no other one that lives."
      : "This node does not answer. It named no others, as it tells its state at --ops-addr only.";
    return;
  }
  const links = others.flatMap(({ name, http }, place) => {
    const link = element("a", "", `${name} (${http})`);
    link.href = addressOf(http);
    return place ? [", ", link] : [link];
  });
  // Built once: an alert that is written anew is read out anew.
  if (wasHidden) box.replaceChildren("This node does not answer. Others that live: ", ...links, element("span", "since"));
  box.lastChild.textContent = `, as of ${seconds} s ago.`;
}

const addressOf = (http) => `${location.protocol}//${http}/`;

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
  const isHere = (member) => (member.node_id ? member.node_id === node.node_id : member.name === node.name);
  others = members.filter((member) => member.state === "alive" && member.http && !isHere(member));
  $("members-empty").hidden = members.length > 0;
  $("members-empty").textContent = hasStatus
    ? "This node sees no members yet."
    : "This node tells its state to operators, at --ops-addr; so this page cannot name the other nodes.";
  $("members").replaceChildren(...members.map((member) => memberItem(status, member, isHere(member))));
}

function memberItem(status, member, isHere) {
  const item = element("li");
  const state = member.state ?? "unknown";
  const isLeader = member.role === "leader" || (status.leader && [member.name, member.node_id].includes(status.leader));
  item.dataset.health = state === "failed" ? "dead" : state;
  const name = element("span", "name", member.name ?? "?");
  if (isHere) name.append(" ", element("span", "here", "you are here"));
  const role = isLeader ? "leader" : member.role ?? "member";
  const detail = element("span", "detail", `${state} · `);
  if (member.http && !isHere) {
    const link = element("a", "", member.http);
    link.href = addressOf(member.http);
    detail.append(link);
  } else {
    detail.append(member.http || member.rpc || "");
  }
  item.append(element("span", "dot"), name, element("span", `role ${role}`, role), detail);
  return item;
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

/** Show who is subscribed while that part of the page is open; `headers` gives a request's headers. */
export function watchSubscribers(headers) {
  const box = $("subscribers");
  let asking = false;
  box.ontoggle = async () => {
    while (box.open && !asking) {
      asking = true;
      await askSubscribers(headers());
      await new Promise((wake) => setTimeout(wake, SUBSCRIPTIONS_EVERY_MS));
      asking = false;
    }
  };
}

async function askSubscribers(headers) {
  let subscriptions = [];
  let trouble = "Nobody that this token may see is subscribed.";
  try {
    const answer = await fetch(SUBSCRIPTIONS, { headers, signal: AbortSignal.timeout(SUBSCRIPTIONS_EVERY_MS) });
    if (answer.ok) subscriptions = (await answer.json()).subscriptions ?? [];
    else trouble = whyNot(answer.status);
  } catch {
    trouble = "The node does not answer.";
  }
  $("subscribers-count").textContent = subscriptions.length ? number(subscriptions.length) : "";
  $("subscribers-list").replaceChildren(...subscriptions.slice(0, SUBSCRIPTIONS_SHOWN_MAX).map(subscriptionItem));
  const more = subscriptions.length - SUBSCRIPTIONS_SHOWN_MAX;
  if (more > 0) trouble = `And ${number(more)} more.`;
  $("subscribers-empty").textContent = trouble;
  $("subscribers-empty").hidden = subscriptions.length > 0 && more <= 0;
}

function whyNot(status) {
  if (status === 404) return "Presence is off. The setting --subscriptions of the nodes turns it on.";
  if (status === 401 || status === 403) return `This needs a token that may subscribe to ${SUBSCRIPTIONS} (or to *).`;
  return `The node answers ${status}.`;
}

function subscriptionItem({ topic, match, subscriber, active, payload }) {
  const item = element("li");
  item.dataset.health = active === false ? "dead" : "alive";
  const detail = [subscriber, payload === undefined ? "" : JSON.stringify(payload)].filter(Boolean).join(" · ");
  item.append(element("span", "dot"), element("span", "name", topic ?? match ?? "?"), element("span"), element("span", "detail", detail));
  return item;
}
