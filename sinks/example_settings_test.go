package sinks_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

type pagerConfig struct {
	Token  sinks.Secret  `json:"token" description:"API token" required:"true"`
	Level  string        `json:"level" description:"how loud" enum:"low,high" default:"low"`
	From   int           `json:"from" description:"first hour of the day" minimum:"0" maximum:"23" default:"8"`
	To     int           `json:"to" description:"last hour of the day" minimum:"0" maximum:"23" default:"17"`
	Repeat time.Duration `json:"repeat" description:"how often, until somebody answers" default:"5m"`
}

// Validate says what the tags cannot.
func (c pagerConfig) Validate(ctx context.Context, v *sinks.Validation) {
	if c.From > c.To {
		v.Error("/from", "the first hour is after the last", "a night is not supported: use two webhooks")
	}
	if c.Repeat < time.Minute {
		v.Warn("/repeat", "more than once a minute wakes the neighbours", "")
	}
	if !v.Online {
		return // do not ask anybody
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "https://pager.example.com/whoami", nil)
	if err != nil {
		v.Error("", err.Error(), "")
		return
	}
	req.Header.Set("Authorization", "Bearer "+c.Token.Reveal())
	resp, err := v.Env.HTTP().Do(req)
	if err != nil {
		v.Warn("", "the pager does not answer", "the token was not tried")
		return
	}
	defer resp.Body.Close()
	if _, err := sinks.FromResponse(resp); err != nil {
		v.Error("/token", err.Error(), "make a new token under Account, API")
	}
}

// Settings that look at themselves. What the tags say has been checked before.
func ExampleValidator() {
	_, err := sinks.Decode[pagerConfig]([]byte(`{"tokn":"x","level":"hihg","from":24}`))
	fmt.Println(err)

	settings, err := sinks.Decode[pagerConfig]([]byte(`{"token":"x","from":18}`))
	fmt.Println(settings.Token, settings.Level, settings.Repeat, err)
	var v sinks.Validation
	settings.Validate(context.Background(), &v)
	for _, d := range v.Diagnostics() {
		fmt.Println(d.Path, d.Summary)
	}
	// Output:
	// setting /tokn: no such setting; did you mean "token"?
	// setting /level: must be one of "low", "high"; did you mean "high"?
	// setting /from: must be at most 23
	// setting /token: is required
	// ******** low 5m0s <nil>
	// /from the first hour is after the last
}

// The fields of an entry in the order of its form, as a table for people.
func ExampleEntry_Fields() {
	entry := sinks.Entry{ID: "1", Data: []byte(`{"amount": 12.50, "what": "coffee & cake", "paid": true, "note": null}`)}
	fields, err := entry.Fields()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range fields {
		fmt.Printf("%s: %s\n", f.Name, sinks.Truncate(f.Text(), 8))
	}
	// Output:
	// amount: 12.50
	// what: coffee …
	// paid: true
	// note:
}
