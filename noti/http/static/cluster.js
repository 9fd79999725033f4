// The page for operators: shows the cluster as the node that serves it sees it.

import { $, element, number } from "./dom.js";

const STATUS_EVERY_MS = 1500;

let others = []; // The nodes that were last seen alive, besides the one that serves this page.
let answeredAt = 0;

/** Ask the node for its state from now on. */
async function watchStatus() {
  try {
    const answer = await fetch("/status", { signal: AbortSignal.timeout(STATUS_EVERY_MS * 2) });
    showStatus(await answer.json());
    answeredAt = performance.now();
    document.body.classList.remove("stale");
    $("elsewhere").hidden = true;
    showConnection("open", "answers");
  } catch {
    document.body.classList.add("stale");
    showConnection("connecting", "does not answer");
    showOthers();
  }
  setTimeout(watchStatus, STATUS_EVERY_MS);
}

function showConnection(state, text) {
  $("connection").dataset.state = state;
  $("connection-text").textContent = text;
}

function showOthers() {
  const box = $("elsewhere");
  const wasHidden = box.hidden;
  box.hidden = false;
  const seconds = Math.round((performance.now() - answeredAt) / 1000);
  if (others.length === 0) {
    box.textContent = "This node does not answer, and it knew of no other one that lives.";
    return;
  }
  const links = others.flatMap((member, place) => (place ? [", ", linkTo(member, member.name)] : [linkTo(member, member.name)]));
  // Built once: an alert that is written anew is read out anew.
  if (wasHidden) box.replaceChildren("This node does not answer. Others that live: ", ...links, element("span", "since"));
  box.lastChild.textContent = `, as of ${seconds} s ago.`;
}

function linkTo({ ops }, text) {
  const link = element("a", "", text);
  if (ops) link.href = `http://${ops}/`;
  return link;
}

function showStatus(status) {
  const node = status.node ?? {};
  $("node").textContent = node.name ?? location.host;
  $("node-label").textContent = `shows this${status.role ? `, ${status.role}` : ""}`;
  $("clients").textContent = number(status.clients);
  $("newest").textContent = number(status.store?.last_seq);
  $("term").textContent = status.term ? `term ${status.term}` : "";
  document.title = node.name ? `${node.name} · noti` : "noti";
  showMembers(status, node);
  showTroubles(status.troubles ?? []);
  showFacts(status);
}

function showMembers(status, node) {
  const all = Array.isArray(status.members) ? status.members : [];
  const isHere = (member) => (member.node_id ? member.node_id === node.node_id : member.name === node.name);
  // Who died keeps its place here while it has a seat in the cluster; who only gossiped is forgotten.
  const members = all.filter(({ state, role }) => ["alive", "suspect"].includes(state) || role !== "none");
  others = members.filter((member) => member.state === "alive" && !isHere(member));
  $("alive").textContent = number(members.filter(({ state }) => state === "alive").length);
  $("members-empty").hidden = members.length > 0;
  $("members-empty").textContent = "This node sees no members yet.";
  $("members").replaceChildren(...members.map((member) => memberItem(status, member, isHere(member))));
}

function memberItem(status, member, isHere) {
  const item = element("li");
  const state = member.state ?? "unknown";
  const isLeader = member.role === "leader" || (status.leader && [member.name, member.node_id].includes(status.leader));
  item.dataset.health = state === "left" ? "dead" : state;
  const name = element("span", "name", "", [isHere ? member.name : linkTo(member, member.name ?? "?")]);
  if (isHere) name.append(" ", element("span", "here", "you are here"));
  const role = isLeader ? "leader" : member.role ?? "member";
  const places = [member.http && `HTTP ${member.http}`, member.rpc && `RPC ${member.rpc}`];
  const detail = element("span", "detail", [state, ...places].filter(Boolean).join(" · "));
  item.append(element("span", "dot"), name, element("span", `role ${role}`, role), detail);
  return item;
}

function showTroubles(troubles) {
  $("troubles").hidden = troubles.length === 0;
  $("troubles").replaceChildren(...troubles.map(({ since, text }) => element("p", "", `${text}${since ? ` (since ${since})` : ""}`)));
}

function showFacts(status) {
  const source = status.source ?? {};
  const store = status.store ?? {};
  const facts = [
    ["source", [source.state ?? "–", source.error].filter(Boolean).join(": ")],
    ["committed", number(status.commit)],
    ["applied here", number(status.applied)],
    ["in history", store.last_seq ? `${number(store.first_seq)} to ${number(store.last_seq)}` : "–"],
    ["version", status.node?.version ?? "–"],
  ];
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

watchStatus();
