// A reader of a Mercure hub in Node, with a token in its header: says each event, one JSON object a
// line. node mercure.mjs eventsource|fetch-event-source URL TOKEN
import { EventSource } from 'eventsource'

const [which, url, token] = process.argv.slice(2)
const tell = ({ id, type, data }) => process.stdout.write(`${JSON.stringify({ id, type, data })}\n`)
const headers = { Authorization: `Bearer ${token}` }

if (which === 'eventsource') {
  const source = new EventSource(url, {
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
  })
  for (const type of ['message', 'news']) {
    source.addEventListener(type, ({ lastEventId, data }) => tell({ id: lastEventId, type, data }))
  }
} else {
  // It is made for pages.
  globalThis.window = globalThis
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }
  const { fetchEventSource } = await import('@microsoft/fetch-event-source')
  await fetchEventSource(url, {
    headers,
    onmessage: ({ id, event, data }) => tell({ id, type: event || 'message', data }),
  })
}

setInterval(() => {}, 60_000)
