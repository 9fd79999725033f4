// Follows a hub of noti as an EventSource does, and does what that cannot: it moves on to another
// node, says when something was missed, renews its token, and shares one connection among all tabs.
//
//   <script type="module" src="https://node-1.example/noti.js"></script>  gives `Noti`, as does
//   import { Noti } from "https://node-1.example/noti.js";
//
//   const events = new Noti(["https://node-1.example", "https://node-2.example"], {
//     topics: ["/users/7"],        // selectors of Mercure 0.x; or `match`, `matchUrlPattern` of 1.0
//     getToken: async () => "...", // or token: "..."; neither where a cookie or nothing is needed
//     cookies: false,              // true: send cookies to nodes of other origins too
//     websocket: false,            // true: read over a WebSocket, where a proxy holds streams back
//     websocket: false,            // true: read over a WebSocket, where something holds streams back
//     lastEventId: "", last: 0,    // begin behind this event, or with the last so many
//     share: "",                   // whose connection tabs share: where a cookie says who it is, name
//                                  // the user here; false: this tab has a connection of its own
//     onevent({ id, type, data }) {},
//     ongap({ data }) {},          // events were missed that history no longer has: begin anew
//     onstate({ state, node, reason }) {}, // "connecting", "open", or "rejected" by a 4xx status
//   });
//   events.close();
//
// It reads by `fetch`, since an EventSource hides its cursor, types that it was not told of and why it
// was rejected, and sends no token in a header. Sharing needs a page from https or localhost.

const HUB = "/.well-known/mercure";
const ANSWER_MS = 5000; // A node that has not answered by then is left for the next one.
const SILENCE_MS = 45000; // Three heartbeats; with a longer --sse-heartbeat-s streams are only opened anew.
const PAUSE_MS = { first: 500, max: 5000 };
const RENEWAL_MS = 30000; // So long before a token expires comes the next one; a tenth of its time, if shorter.
const QUIET_MS = 300; // A tab that comes later has all of history after such a silence.
const SEEN_MAX = 256; // Events by which a repetition is told, when one tab takes over from another.

export class Noti {
  #nodes; #options; #query; #token; #cursor; #channel; #attempt; #wake;
  #renewAt = Infinity;
  #retryMs = PAUSE_MS.first;
  #state = {};
  #seen = [];
  #early = null; // What other tabs told while this one still reads history.
  #leads = false; // Whether this tab has the connection.
  #closed = new AbortController();

  constructor(nodes, options = {}) {
    const { topics = [], match = [], matchUrlPattern = [], lastEventId = "", last = 0 } = options;
    this.#nodes = [nodes].flat().map((node) => new URL(node, location.href));
    for (const node of this.#nodes) if (node.pathname === "/") node.pathname = HUB;
    const named = { topic: topics, match, match_urlpattern: matchUrlPattern };
    this.#query = Object.entries(named).flatMap(([name, values]) => values.map((value) => [name, value]));
    this.#query.push(["cursor", "1"], ...(last ? [["last", last]] : []));
    this.#options = options;
    this.#cursor = lastEventId;
    this.#run();
  }

  close() {
    this.#closed.abort();
    this.#attempt?.abort();
    this.#wake?.();
    this.#channel?.close();
  }

  // Tabs: who has the lock has the connection, and tells the others. When it goes, who waits longest is next.

  async #run() {
    const { signal } = this.#closed;
    const { share = "", lastEventId, last } = this.#options;
    // Without its token a tab would share with those that have none.
    while (!(await this.#renew()) && !signal.aborted) await this.#pause(PAUSE_MS.max);
    if (share === false || !navigator.locks) return this.#follow();
    const name = `noti ${JSON.stringify([this.#nodes, this.#query, share, rightsIn(this.#token)])}`;
    if (signal.aborted) return;
    if (lastEventId || last) this.#early = [];
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => (data.hello ? this.#greet() : this.#hear(data));
    this.#channel.postMessage({ hello: true });
    await navigator.locks.request(name, { ifAvailable: true }, (lock) => this.#catchUp(lock));
    await navigator.locks.request(name, { signal }, () => this.#follow()).catch(() => {}); // Closed meanwhile.
  }

  #greet() {
    if (this.#leads) this.#channel.postMessage({ cursor: this.#cursor, state: this.#state });
  }

  #hear(news) {
    if (this.#early) this.#early.push(...(news.events ?? []));
    else this.#take(news);
  }

  #tell(news) {
    if (this.#closed.signal.aborted) return;
    if (this.#leads) this.#channel?.postMessage(news);
    this.#take(news);
  }

  #take({ events = [], cursor, state }) {
    const { onevent, ongap, onstate } = this.#options;
    for (const event of events) {
      if (this.#seen.some((one) => same(one, event))) continue;
      if (this.#seen.push(event) > SEEN_MAX) this.#seen.shift();
      call(event.type === "noti-gap" ? ongap : onevent, event);
    }
    this.#cursor = cursor || this.#cursor;
    if (!state || (state.state === this.#state.state && state.node === this.#state.node)) return;
    this.#state = state;
    call(onstate, state);
  }

  async #catchUp(lock) {
    if (lock) this.#early = null;
    if (!lock && !this.#early) return;
    await this.#follow();
    if (!this.#early) return;
    const events = this.#early.slice(1 + this.#early.findLastIndex((one) => same(one, this.#seen.at(-1))));
    this.#early = null;
    this.#take({ events });
  }

  // The connection

  async #follow() {
    this.#leads = !this.#early;
    for (let failures = 0, place = 0; !this.#closed.signal.aborted; ) {
      const node = this.#nodes[place % this.#nodes.length];
      const end = { opened: false, reason: "" };
      if (performance.now() > this.#renewAt) await this.#renew();
      await this.#read(node, end).catch((error) => { end.reason ||= error.message; });
      if (end.caughtUp) return;
      if (end.renewed) continue;
      failures = end.opened ? 0 : failures + 1;
      this.#tell({ state: { state: end.rejected ? "rejected" : "connecting", node: node.origin, reason: end.reason } });
      if (end.rejected) await this.#renew();
      else place += 1;
      const rounds = Math.max(0, end.rejected ? failures : Math.ceil(failures / this.#nodes.length) - 1);
      const pauseMs = Math.min(this.#retryMs * 2 ** rounds, PAUSE_MS.max) * (0.5 + Math.random() / 2);
      await this.#pause(pauseMs);
    }
  }

  async #pause(ms) {
    if (!this.#closed.signal.aborted) await new Promise((wake) => setTimeout((this.#wake = wake), ms));
  }

  async #read(node, end) {
    const attempt = (this.#attempt = new AbortController());
    const timers = {};
    const within = (name, ms, act) => {
      clearTimeout(timers[name]);
      timers[name] = setTimeout(act, Math.max(0, Math.min(ms, 2 ** 31 - 1)));
    };
    const silent = () => {
      end.reason = "the node does not answer";
      attempt.abort();
    };
    try {
      within("silence", ANSWER_MS, silent);
      const url = new URL(node);
      for (const pair of this.#query) url.searchParams.append(...pair);
      if (this.#cursor) url.searchParams.set(this.#options.topics ? "lastEventID" : "last_event_id", this.#cursor);
      const { websocket } = this.#options;
      const parts = websocket ? await messages(url, this.#token, attempt.signal) : await this.#body(url, attempt.signal, end);
      if (!parts) return;
      end.opened = true;
      this.#tell({ state: { state: "open", node: node.origin } });
      within("renewal", this.#renewAt - performance.now(), async () => {
        end.renewed = await this.#renew();
        if (end.renewed) attempt.abort();
      });
      const reader = parts.getReader();
      const parser = new Parser();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        within("silence", SILENCE_MS, silent);
        const news = parser.feed(part.value);
        this.#retryMs = parser.retryMs ?? this.#retryMs;
        if (news.cursor) this.#tell(news);
        if (!this.#early) continue;
        const caughtUp = () => {
          end.caughtUp = true;
          attempt.abort();
        };
        if (this.#early.some((one) => news.events.some((event) => same(one, event)))) caughtUp();
        else within("quiet", QUIET_MS, caughtUp);
      }
      end.reason = "the node ended the stream";
    } finally {
      Object.values(timers).forEach(clearTimeout);
      attempt.abort();
    }
  }

  async #body(url, signal, end) {
    const answer = await fetch(url, {
      headers: { Accept: "text/event-stream", ...(this.#token && { Authorization: `Bearer ${this.#token}` }) },
      credentials: this.#options.cookies ? "include" : "same-origin",
      cache: "no-store",
      signal,
    });
    if (answer.ok) return answer.body.pipeThrough(new TextDecoderStream());
    end.rejected = answer.status < 500 && answer.status !== 429;
    end.reason = `${answer.status}: ${(await answer.text()).trim()}`;
  }

  async #renew() {
    const { getToken, token } = this.#options;
    try {
      this.#token = getToken ? await getToken() : token;
    } catch (error) {
      this.#renewAt = performance.now() + PAUSE_MS.max;
      this.#tell({ state: { state: "connecting", ...this.#state, reason: `no token: ${error.message}` } });
      return false;
    }
    const { exp, iat = Date.now() / 1000 } = claimsIn(this.#token);
    const lifeMs = (exp - iat) * 1000;
    this.#renewAt = getToken && exp ? performance.now() + Math.max(lifeMs - RENEWAL_MS, lifeMs * 0.9, 1000) : Infinity;
    return true;
  }
}

// The text of an event stream in the messages of a WebSocket, as soon as that is open. Why one is refused, no
// page is told.
function messages(url, token, signal) {
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url, ["sse", ...(token ? [`authorization.bearer.${token}`] : [])]);
  return new Promise((opened, failed) => {
    const parts = new ReadableStream({
      start(control) {
        const end = (reason) => {
          socket.close();
          failed(new Error(reason));
          control.error(new Error(reason));
        };
        socket.onopen = () => opened(parts);
        socket.onmessage = ({ data }) => control.enqueue(data);
        socket.onclose = ({ code, reason }) => end(`the WebSocket is closed: ${code} ${reason}`.trim());
        signal.addEventListener("abort", () => end("given up"));
      },
    });
  });
}

class Parser { // Of an event stream whose lines end with LF, as those of noti do.
  #rest = "";
  #id = "";
  #type = "";
  #data = null;

  feed(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    const news = { events: [], cursor: "" };
    for (const line of lines) {
      const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (name === "id") this.#id = value;
      else if (name === "event") this.#type = value;
      else if (name === "data") this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
      else if (name === "retry") this.retryMs = Number(value);
      else if (line === "") {
        if (this.#data !== null) news.events.push({ id: this.#id, type: this.#type || "message", data: this.#data });
        news.cursor = this.#id || news.cursor;
        this.#type = "";
        this.#data = null;
      }
    }
    return news;
  }
}

const same = (one, other) => one.id === other?.id && one.type === other.type && one.data === other.data;

function call(callback, value) {
  try {
    callback?.(value);
  } catch (error) {
    reportError(error); // As for an EventSource: one event's trouble is not the next one's.
  }
}

function claimsIn(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    return {};
  }
}

// Tabs share a connection only if they may see the same; a renewed token is the same in this.
function rightsIn(token) {
  const { exp, iat, nbf, jti, ...rights } = claimsIn(token);
  return Object.keys(rights).length > 0 ? rights : token;
}

globalThis.Noti = Noti;
