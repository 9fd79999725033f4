// A WebSocket in Go that goes on at the next URL, after the last id, whenever one ends: says each
// event, one JSON object a line. websocket TOKEN URL...
package main

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

type said struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Data   string `json:"data"`
	Cursor string `json:"cursor"`
}

var tell = json.NewEncoder(os.Stdout)

func main() {
	token, urls := os.Args[1], os.Args[2:]
	last := "earliest"
	for turn := 0; ; turn++ {
		last = read(urls[turn%len(urls)], token, last)
		time.Sleep(200 * time.Millisecond)
	}
}

// read returns the last id once the connection has ended.
func read(address, token, last string) string {
	target, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	query := target.Query()
	query.Set("lastEventID", last)
	target.RawQuery = query.Encode()
	context := context.Background()
	options := &websocket.DialOptions{Subprotocols: []string{"noti", "authorization.bearer." + token}}
	connection, _, err := websocket.Dial(context, target.String(), options)
	if err != nil {
		return last
	}
	defer connection.CloseNow()
	tell.Encode(map[string]any{"open": true, "protocol": connection.Subprotocol()})
	for {
		var event said
		if err := wsjson.Read(context, connection, &event); err != nil {
			tell.Encode(map[string]any{"close": int(websocket.CloseStatus(err))})
			return last
		}
		switch {
		case event.Type == "noti-gap":
			tell.Encode(map[string]any{"gap": event.Data})
		case event.ID != "":
			last = event.ID
			tell.Encode(map[string]any{"id": event.ID, "data": event.Data})
		case event.Cursor != "":
			last = event.Cursor
		}
	}
}
