package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestTheAddressOfTheMetricsIsChecked(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:9465":          "",
		"[::1]:9465":              "",
		"[::ffff:127.0.0.1]:9465": "",
		"localhost:9465":          "",
		"127.8.9.1:1":             "",
		"":                        "",
		":9465":                   "warning open_metrics",
		"0.0.0.0:9465":            "warning open_metrics",
		"192.0.2.7:65535":         "warning open_metrics",
		"[fe80::1%eth0]:9465":     "warning open_metrics",
		"metrics.internal:9465":   "warning open_metrics",
		"127.0.0.1":               "error bad_address",
		"9465":                    "error bad_address",
		"::1:9465":                "error bad_address",
		"127.0.0.1:0":             "error bad_address",
		"127.0.0.1:65536":         "error bad_address",
		"127.0.0.1:http":          "error bad_address",
		"http://127.0.0.1:9465":   "error bad_address",
		"127.0.0.1:9465/metrics":  "error bad_address",
		"/run/metrics.sock":       "error bad_address",
		"a host:9465":             "error bad_address",
		"user@host:9465":          "error bad_address",
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		writeFile(t, path, "listen: {metrics: '"+address+"'}\nhelpers: {h: {secret: 0123456789abcdef01234567, webhooks: {w: {url: 'https://example.com'}}}}\n", 0o600)
		_, report := Load(options(path))
		var got []string
		for _, f := range report.Findings {
			if f.Path == "/listen/metrics" {
				got = append(got, f.Severity+" "+f.Code)
			}
		}
		if found := strings.Join(got, ", "); found != want {
			t.Errorf("%q: %s, want %s: %+v", address, found, want, report.Findings)
		}
	}
}
