// Shows who is subscribed, to whom that may be told.

import { $, element, number } from "./dom.js";

const SUBSCRIPTIONS = "/.well-known/mercure/subscriptions";
const SUBSCRIPTIONS_EVERY_MS = 3000;
const SUBSCRIPTIONS_SHOWN_MAX = 50;

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
