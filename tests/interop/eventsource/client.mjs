// One EventSource in Node: says everything that it is told, one JSON object a line.
// node client.mjs eventsource|undici URL
import { EventSource as Eventsource } from 'eventsource'
import { EventSource as Undici } from 'undici'

const [which, url] = process.argv.slice(2)
const source = new { eventsource: Eventsource, undici: Undici }[which](url)
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`)

source.onopen = () => tell({ open: true })
source.onmessage = (event) => tell({ id: event.lastEventId, data: event.data })
source.addEventListener('noti-gap', (event) => tell({ gap: event.data }))
source.onerror = () => tell({ error: source.readyState })

// undici's wait before a reconnection does not keep Node running.
setInterval(() => {}, 60_000)
