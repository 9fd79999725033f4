// Command publisher makes streams of the three retentions, and publishes to each what applications
// do: JSON, text, a CloudEvent and protobuf.
//
//	publisher streams nats://127.0.0.1:4222
//	publisher publish nats://127.0.0.1:4222 order.binpb
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

var retentions = map[string]jetstream.RetentionPolicy{
	"workqueue": jetstream.WorkQueuePolicy,
	"interest":  jetstream.InterestPolicy,
	"limits":    jetstream.LimitsPolicy,
}

func main() {
	connection := must(nats.Connect(os.Args[2]))
	defer connection.Close()
	stream := must(jetstream.New(connection))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for name, retention := range retentions {
		if os.Args[1] == "streams" {
			must(stream.CreateStream(ctx, jetstream.StreamConfig{
				Name:      name,
				Subjects:  []string{name + ".>"},
				Retention: retention,
			}))
			continue
		}
		for _, message := range messages(name, os.Args[3]) {
			must(stream.PublishMsg(ctx, message))
		}
	}
}

func messages(stream, descriptors string) []*nats.Msg {
	return []*nats.Msg{
		{
			Subject: stream + ".json",
			Header:  nats.Header{"Nats-Msg-Id": {stream + "-json"}},
			Data:    must(json.Marshal(map[string]any{"user": map[string]any{"id": 7}, "text": "né"})),
		},
		{
			Subject: stream + ".text",
			Header: nats.Header{
				"Nats-Msg-Id": {stream + "-text"},
				"Noti-Topic":  {"/greetings", "/news"},
				"Noti-Type":   {"greeting"},
			},
			Data: []byte("né\nand more"),
		},
		{Subject: stream + ".cloudevents", Data: cloudEvent(stream)},
		{
			Subject: stream + ".protobuf.17",
			Header:  nats.Header{"Nats-Msg-Id": {stream + "-protobuf"}},
			Data:    order(descriptors),
		},
	}
}

func cloudEvent(stream string) []byte {
	event := cloudevents.New()
	event.SetID(stream + "-cloudevents")
	event.SetSource("https://example.com/shop")
	event.SetType("com.example.order.created")
	event.SetSubject("/orders/created")
	check(event.SetData(cloudevents.ApplicationJSON, map[string]int{"order": 17}))
	return must(json.Marshal(event))
}

func order(descriptors string) []byte {
	var set descriptorpb.FileDescriptorSet
	check(proto.Unmarshal(must(os.ReadFile(descriptors)), &set))
	found := must(must(protodesc.NewFiles(&set)).FindDescriptorByName("shop.Order"))
	message := dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor))
	check(protojson.Unmarshal([]byte(`{"id": "17", "item": "né", "quantity": 2}`), message))
	return must(proto.Marshal(message))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
