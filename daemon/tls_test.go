package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// What takes any certificate is said at each place where somebody looks: the check,
// a plan, a reload, the log at the start and at the reload, the status, and the
// delivery log, which outlives the setting.
func TestSkippedVerificationIsSaidEverywhere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	const dropIn, said = "conf.d/50-skip.yaml", "certificate is not verified"
	edit := hook("secure", "tls: {ca: other.pem, insecure_skip_verify: true}")
	plan, err := s.admin.Plan(t.Context(), rest.PlanRequest{Files: []rest.PlanFile{{Role: filepath.Base(dropIn), Content: edit}}})
	if err != nil || !plan.Valid || !strings.Contains(plan.Report, said) || len(plan.Changes) != 1 {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	s.write(dropIn, edit)
	// The watcher may be faster: then the reload finds nothing to do.
	applied, err := s.admin.Reload(t.Context())
	if err != nil || applied.Result == rest.ReloadApplied && !strings.Contains(applied.Report, said) {
		t.Errorf("reload: %+v, %v", applied, err)
	}
	s.daemon.waitLine(said)
	if list := strings.Join(s.status().Config.Warnings, "\n"); !strings.Contains(list, "50-skip.yaml:1:") || !strings.Contains(list, said) {
		t.Errorf("status: %s", list)
	}
	if got := verified("secure")(s, ""); got != "not verified" {
		t.Errorf("a delivery to another authority's receiver: %s", got)
	}
	s.daemon.stop()
	s.daemon = s.up()
	s.daemon.waitLine(said)
	if err := os.Remove(filepath.Join(s.dir, dropIn)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := strings.Join(s.status().Config.Warnings, "\n"); strings.Contains(list, said) {
		t.Errorf("status afterwards: %s", list)
	}
	if got := verified("secure")(s, ""); got != "verified" {
		t.Errorf("a delivery afterwards: %s", got)
	}
}

// Certificates are rotated by replacing files. What cannot work is refused, and the
// pair that runs goes on; what may work is taken over, with a warning.
func TestCertificatesAreRotatedByReplacingTheirFiles(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	reload := func(wantErr, says string) {
		t.Helper()
		_, err := s.admin.Reload(t.Context())
		st := s.status().Config
		text := strings.Join(st.Warnings, " ")
		if st.LastReload != nil && st.State == rest.ConfigRejected {
			text += st.LastReload.Error
		}
		if st.State != wantErr || !strings.Contains(text, says) {
			t.Errorf("state %s: %q, %v; want %s with %q", st.State, text, err, wantErr, says)
		}
	}
	client := func(want string) {
		t.Helper()
		if got := clientOf(s, ""); got != want {
			t.Errorf("the receiver saw the certificate of %q, want %q", got, want)
		}
	}
	client("client")
	s.write("client.pem", s.certs[2]) // the key is still the old one
	reload(rest.ConfigRejected, "the key is not that of the certificate")
	client("client")
	s.write("client.key", s.certs[3])
	reload(rest.ConfigCurrent, "")
	client("second")

	past := time.Now().AddDate(-1, 0, 0)
	cert, key := inPEM(t, &x509.Certificate{Subject: pkix.Name{CommonName: "old"}, NotBefore: past.AddDate(-1, 0, 0), NotAfter: past}, newAuthority(t, "another"))
	s.write("client.key", key)
	s.write("client.pem", cert)
	reload(rest.ConfigCurrent, "the client certificate expired on")
	client("old")

	s.write("ca.pem", "nothing")
	reload(rest.ConfigRejected, "no certificate in PEM form")
	client("old")
	s.write("ca.pem", s.read("other.pem")) // it issued nobody's certificate
	reload(rest.ConfigCurrent, "")
	if got := ended("secure")(s, ""); got != "pending tls" {
		t.Errorf("a delivery to a receiver of another authority: %s", got)
	}
}
