package config

import (
	"strings"
	"testing"
)

// The rules of the web listener: closed to other machines, and never without a token.
func TestTheWebListenerIsClosedAndHasAToken(t *testing.T) {
	const token = "0123456789abcdef"
	for name, c := range map[string]struct {
		listen string
		want   string // in the first message; "" = it is fine
	}{
		"IPv4":                   {`web: "127.0.0.1:8465", web_token: ` + token, ""},
		"another of the net":     {`web: "127.8.8.8:8465", web_token: ` + token, ""},
		"IPv6":                   {`web: "[::1]:8465", web_token: ` + token, ""},
		"a name":                 {`web: "localhost:8465", web_token: ` + token, ""},
		"any free port":          {`web: "127.0.0.1:0", web_token: ` + token, ""},
		"names of a proxy":       {`web: "127.0.0.1:8465", web_hosts: [relay.example.com, RELAY, 10.0.0.1, "::1"], web_token: ` + token, ""},
		"off":                    {`web: ""`, ""},
		"every address":          {`web: ":8465", web_token: ` + token, "every address"},
		"every address, IPv4":    {`web: "0.0.0.0:8465", web_token: ` + token, "from other machines"},
		"every address, IPv6":    {`web: "[::]:8465", web_token: ` + token, "from other machines"},
		"an address of a net":    {`web: "192.0.2.1:8465", web_token: ` + token, "from other machines"},
		"mapped":                 {`web: "[::ffff:192.0.2.1]:8465", web_token: ` + token, "from other machines"},
		"no port":                {`web: "127.0.0.1", web_token: ` + token, "not an address with a port"},
		"a port with a name":     {`web: "127.0.0.1:http", web_token: ` + token, "not a number"},
		"a port that is none":    {`web: "127.0.0.1:65536", web_token: ` + token, "not a number"},
		"another name":           {`web: "relay.example.com:8465", web_token: ` + token, "neither localhost nor"},
		"no token":               {`web: "127.0.0.1:8465"`, "listen.web needs listen.web_token"},
		"an empty token":         {`web: "127.0.0.1:8465", web_token: ""`, "the token is empty"},
		"a short token":          {`web: "127.0.0.1:8465", web_token: 0123456789abcde`, "fewer than 16"},
		"a token with a space":   {`web: "127.0.0.1:8465", web_token: "0123456789 abcdef"`, "a space"},
		"a token of other signs": {`web: "127.0.0.1:8465", web_token: "0123456789äbcdef"`, "not ASCII"},
		"a URL for a name":       {`web: "127.0.0.1:8465", web_hosts: ["https://a.example"], web_token: ` + token, "not the name of a host"},
		"a name with a port":     {`web: "127.0.0.1:8465", web_hosts: ["a.example:1"], web_token: ` + token, "not the name of a host"},
		"a pattern":              {`web: "127.0.0.1:8465", web_hosts: ["*.example"], web_token: ` + token, "not the name of a host"},
		"no name":                {`web: "127.0.0.1:8465", web_hosts: [""], web_token: ` + token, "not the name of a host"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "listen: {" + c.listen + "}\nhelpers: {a: {webhooks: {}}}\n"
			_, report := Load(Options{Path: write(t, map[string]string{"config.yaml": text}) + "/config.yaml"})
			err := report.Err()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), token[:10]) {
				t.Errorf("the token is shown: %v", err)
			}
		})
	}
}

func TestATokenWithoutAListenerIsWarnedOf(t *testing.T) {
	text := "listen: {web_token: 0123456789abcdef}\nhelpers: {a: {webhooks: {}}}\n"
	_, report := Load(Options{Path: write(t, map[string]string{"config.yaml": text}) + "/config.yaml"})
	if report.Err() != nil || !strings.Contains(text1(t, report), "does nothing without listen.web") {
		t.Errorf("%v\n%s", report.Err(), text1(t, report))
	}
}
