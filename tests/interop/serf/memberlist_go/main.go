// A member made of memberlist alone, with what Serf's agents have no flags for: a label, and the
// first version of encryption. It prints the names of all members, again and again.
package main

import (
	"encoding/base64"
	"flag"
	"fmt"
	"log"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

func main() {
	config := memberlist.DefaultLocalConfig()
	flag.StringVar(&config.Name, "name", "", "")
	flag.StringVar(&config.BindAddr, "host", "", "")
	flag.IntVar(&config.BindPort, "port", 0, "")
	flag.StringVar(&config.Label, "label", "", "")
	key := flag.String("key", "", "in base64")
	join := flag.String("join", "", "")
	old := flag.Bool("old", false, "speak protocol version 1")
	flag.Parse()

	config.AdvertisePort = config.BindPort
	config.DelegateProtocolMin, config.DelegateProtocolMax, config.DelegateProtocolVersion = 2, 5, 5
	if *old {
		config.ProtocolVersion = 1
	}
	secret, err := base64.StdEncoding.DecodeString(*key)
	if err != nil {
		log.Fatal(err)
	}
	if len(secret) > 0 {
		config.SecretKey = secret
	}
	list, err := memberlist.Create(config)
	if err != nil {
		log.Fatal(err)
	}
	if *join != "" {
		if _, err := list.Join([]string{*join}); err != nil {
			fmt.Printf("refused: %q\n", err.Error())
		}
	}
	for {
		var names []string
		for _, member := range list.Members() {
			names = append(names, member.Name)
		}
		slices.Sort(names)
		fmt.Println("members:", strings.Join(names, " "))
		time.Sleep(100 * time.Millisecond)
	}
}
