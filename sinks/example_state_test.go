package sinks_test

import (
	"context"
	"fmt"
	"strconv"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// board keeps a card for each entry. The service gives a card its number, and wants to
// see it to change the card.
type board struct{ cards map[int]string }

func (b *board) Deliver(_ context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	number, err := strconv.Atoi(string(d.State))
	switch {
	case err != nil && d.Event == sinks.Deleted:
		return sinks.Receipt{}, sinks.Skip("there is no card of this entry")
	case err != nil: // the first delivery of this entry, or an update of one that came before the webhook
		number = len(b.cards) + 1
	case d.Event == sinks.Deleted:
		delete(b.cards, number)
		return sinks.Receipt{Message: fmt.Sprintf("removed card %d", number)}, nil
	}
	b.cards[number] = string(d.Entry.Data)
	return sinks.Receipt{
		Message: fmt.Sprintf("card %d", number),
		State:   []byte(strconv.Itoa(number)), // comes with the entry's next delivery
	}, nil
}

// A sink that finds again what it made: UsesState lets the relay keep a few bytes for
// each entry, and sends the deliveries of an entry one after the other.
func Example_state() {
	plugin := sinks.Plugin[struct{}]{
		Name: "board", Version: "1.0.0", Summary: "a card for each entry",
		Capabilities: sinks.Capabilities{UsesState: true, MaxConcurrency: 1},
		Open: func(context.Context, sinks.Env, struct{}) (sinks.Sink, error) {
			return &board{map[int]string{}}, nil
		},
	}

	s, _ := plugin.Open(context.Background(), sinks.Env{}, struct{}{})
	var state []byte // what the relay does with it
	for _, event := range []string{sinks.Created, sinks.Updated, sinks.Deleted} {
		receipt, err := s.Deliver(context.Background(), &sinks.Delivery{Event: event, Entry: sinks.Entry{Data: []byte(`{}`)}, State: state})
		state = receipt.State
		fmt.Println(event, receipt.Message, err)
	}
	// Output:
	// entry.created card 1 <nil>
	// entry.updated card 1 <nil>
	// entry.deleted removed card 1 <nil>
}
