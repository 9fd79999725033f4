// A WebSocket in Node that goes on at the next URL, after the last id, whenever one ends: says each
// event, one JSON object a line. node websocket.mjs ws|undici TOKEN URL...
import { WebSocket as Undici } from 'undici'
import { WebSocket as Ws } from 'ws'

const [which, token, ...urls] = process.argv.slice(2)
const WebSocket = { ws: Ws, undici: Undici }[which]
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`)
const subprotocols = ['noti', `authorization.bearer.${token}`]
let last = 'earliest'

const connect = (turn) => {
  const url = new URL(urls[turn % urls.length])
  url.searchParams.set('lastEventID', last)
  const socket = new WebSocket(url, subprotocols)
  socket.onopen = () => tell({ open: true, protocol: socket.protocol })
  socket.onmessage = ({ data }) => {
    const said = JSON.parse(data)
    last = said.id ?? said.cursor ?? last
    if (said.type === 'noti-gap') tell({ gap: said.data })
    else if (said.id) tell({ id: said.id, data: said.data })
  }
  socket.onerror = () => {}
  socket.onclose = ({ code }) => {
    tell({ close: code })
    setTimeout(connect, 200, turn + 1)
  }
}

connect(0)
