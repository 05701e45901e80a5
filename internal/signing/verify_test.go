package signing_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

func verify(t *testing.T, in signing.VerifyInput) *signing.VerifyError {
	t.Helper()
	err := signing.Verify(in)
	if err == nil {
		return nil
	}
	ve, ok := errors.AsType[*signing.VerifyError](err)
	if !ok {
		t.Fatalf("%T is not a *VerifyError: %v", err, err)
	}
	return ve
}

func TestHeadersAreFoundInAnyCase(t *testing.T) {
	spec := signing.Spec{Scheme: signing.Standard}
	now := time.Unix(1700000000, 0)
	sigs := signer(t, []signing.Spec{spec}, whsec).Sign(nil, "del_1", now, []byte(body))
	h := make(http.Header)
	for _, s := range sigs {
		h.Set(s.Name, s.Value) // as net/http hands it to a receiver
	}
	if err := verify(t, signing.VerifyInput{Spec: spec, Headers: h, Body: []byte(body), Secrets: values(whsec), Now: now}); err != nil {
		t.Error(err)
	}
}

func TestVerifySaysWhyItRefuses(t *testing.T) {
	good := hexMAC(plain, body)
	pea, bare := signing.Spec{Scheme: signing.Peanuts}, signing.Spec{Scheme: signing.Hex}
	one := func(name, value string) http.Header { return http.Header{name: {value}} }
	const sig, hexSig = "X-Peanuts-Signature", "X-Webhook-Signature"
	for name, c := range map[string]struct {
		spec    signing.Spec
		headers http.Header
		body    string
		secret  string
		reason  signing.Reason
		want    string
	}{
		"missing":             {pea, http.Header{}, body, plain, signing.ReasonMissing, "no such header"},
		"empty":               {pea, one(sig, ""), body, plain, signing.ReasonMissing, "no such header"},
		"other scheme there":  {pea, one(hexSig, good), body, plain, signing.ReasonMissing, "there is a X-Webhook-Signature, the header of scheme hex"},
		"bare in peanuts":     {pea, one(sig, good), body, plain, signing.ReasonMalformed, "looks like scheme hex"},
		"prefix in hex":       {bare, one(hexSig, "sha256="+good), body, plain, signing.ReasonMalformed, "looks like scheme peanuts"},
		"wrong prefix":        {pea, one(sig, "sha1=abc"), body, plain, signing.ReasonMalformed, `does not start with "sha256="`},
		"length":              {pea, one(sig, "sha256="+good[2:]), body, plain, signing.ReasonMalformed, "62 characters instead of 64 hex digits"},
		"base64":              {bare, one(hexSig, base64.StdEncoding.EncodeToString(mac([]byte(plain), body))), body, plain, signing.ReasonMalformed, "look like base64"},
		"not hex":             {bare, one(hexSig, strings.Repeat("zz", 32)), body, plain, signing.ReasonMalformed, "not hexadecimal"},
		"mismatch":            {pea, one(sig, "sha256="+good), body + "x", plain, signing.ReasonMismatch, "not that of this body"},
		"newline added":       {pea, one(sig, "sha256="+good), body + "\n", plain, signing.ReasonMismatch, "newline at the end of the body removed"},
		"crlf added":          {pea, one(sig, "sha256="+good), body + "\r\n", plain, signing.ReasonMismatch, "newline at the end of the body removed"},
		"newline removed":     {pea, one(sig, "sha256="+hexMAC(plain, body+"\n")), body, plain, signing.ReasonMismatch, "something removed it"},
		"byte order mark":     {pea, one(sig, "sha256="+good), "\xef\xbb\xbf" + body, plain, signing.ReasonMismatch, "byte order mark"},
		"indented":            {pea, one(sig, "sha256="+good), strings.ReplaceAll(body, ",", ",\n  "), plain, signing.ReasonMismatch, "verify the raw bytes"},
		"escaped":             {pea, one(sig, "sha256="+good), strings.ReplaceAll(body, "&", `\u0026`), plain, signing.ReasonMismatch, "verify the raw bytes"},
		"secret with newline": {pea, one(sig, "sha256="+good), body, plain + "\n", signing.ReasonMismatch, "white space around the secret"},
		"sender's newline":    {pea, one(sig, "sha256="+hexMAC(plain+"\n", body)), body, plain, signing.ReasonMismatch, "a newline after the secret"},
		"decoded key": {pea, one(sig, "sha256="+hexMAC(string(decode(t, whsec)), body)), body, whsec, signing.ReasonMismatch,
			"base64-decoded secret"},
		"previous": {pea, http.Header{sig: {"sha256=" + hexMAC("other", body)}, sig + "-Previous": {"sha256=" + good}}, body, plain,
			signing.ReasonMismatch, "lists this secret second"},
		"empty secret":   {pea, one(sig, "sha256="+good), body, "", signing.ReasonSecret, "empty"},
		"unknown scheme": {signing.Spec{Scheme: "md5"}, one(sig, good), body, plain, signing.ReasonMalformed, "unknown signature scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			err := verify(t, signing.VerifyInput{Spec: c.spec, Headers: c.headers, Body: []byte(c.body), Secrets: values(c.secret)})
			expect(t, err, c.reason, c.want)
		})
	}
}

func expect(t *testing.T, err *signing.VerifyError, reason signing.Reason, want string) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	if err.Reason != reason || !strings.Contains(err.Error(), want) {
		t.Errorf("reason %q, error %q; want %q with %q", err.Reason, err, reason, want)
	}
}

func decode(t *testing.T, sec string) []byte {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sec, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVerifySaysWhyItRefusesStandard(t *testing.T) {
	const now = 1700000000
	at := func(seconds int64, sig string) map[string]string {
		return map[string]string{"webhook-id": "del_1", "webhook-timestamp": strconv.FormatInt(seconds, 10), "webhook-signature": sig}
	}
	good := standard(t, whsec, "del_1.1700000000."+body)
	without := func(h map[string]string, name string) map[string]string { delete(h, name); return h }
	with := func(h map[string]string, name, value string) map[string]string { h[name] = value; return h }
	signed := func(seconds int64) map[string]string {
		return at(seconds, standard(t, whsec, "del_1."+strconv.FormatInt(seconds, 10)+"."+body))
	}
	literal := "v1," + base64.StdEncoding.EncodeToString(mac([]byte(whsec), "del_1.1700000000."+body))
	for name, c := range map[string]struct {
		headers      map[string]string
		body, secret string
		reason       signing.Reason // "" = accepted
		want         string
	}{
		"good":               {at(now, good), body, whsec, "", ""},
		"one of several":     {at(now, "v1a,abc v1,"+strings.Repeat("A", 43)+"= "+good), body, whsec, "", ""},
		"five minutes old":   {signed(now - 300), body, whsec, "", ""},
		"five minutes ahead": {signed(now + 300), body, whsec, "", ""},
		"too old":            {signed(now - 301), body, whsec, signing.ReasonTimestamp, "signed 5m1s ago"},
		"too new":            {signed(now + 301), body, whsec, signing.ReasonTimestamp, "in the future"},
		"no id":              {without(at(now, good), "webhook-id"), body, whsec, signing.ReasonMissing, "webhook-id: the request has no such header"},
		"no timestamp":       {without(at(now, good), "webhook-timestamp"), body, whsec, signing.ReasonMissing, "webhook-timestamp"},
		"no signature":       {without(at(now, good), "webhook-signature"), body, whsec, signing.ReasonMissing, "webhook-signature"},
		"milliseconds":       {at(now*1000, good), body, whsec, signing.ReasonMalformed, "milliseconds"},
		"not a time":         {with(at(now, good), "webhook-timestamp", "now"), body, whsec, signing.ReasonMalformed, "not a Unix time"},
		"huge time":          {with(at(now, good), "webhook-timestamp", "9223372036854775807"), body, whsec, signing.ReasonMalformed, "not a Unix time"},
		"no v1":              {at(now, "v2,abc"), body, whsec, signing.ReasonMalformed, `starts with "v1,"`},
		"not base64":         {at(now, "v1,###"), body, whsec, signing.ReasonMalformed, "not base64"},
		"short":              {at(now, "v1,QUJD"), body, whsec, signing.ReasonMalformed, "3 bytes instead of 32"},
		"mismatch":           {at(now, good), body + " x", whsec, signing.ReasonMismatch, "no v1 signature"},
		"newline":            {at(now, good), body + "\n", whsec, signing.ReasonMismatch, "newline at the end of the body removed"},
		"literal key":        {at(now, literal), body, whsec, signing.ReasonMismatch, "literal bytes"},
		"body only":          {at(now, standard(t, whsec, body)), body, whsec, signing.ReasonMismatch, `without "id.timestamp."`},
		"unusable secret":    {at(now, good), body, plain, signing.ReasonSecret, "not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			h := make(http.Header)
			for k, v := range c.headers {
				h.Set(k, v)
			}
			err := verify(t, signing.VerifyInput{Spec: signing.Spec{Scheme: signing.Standard}, Headers: h, Body: []byte(c.body),
				Secrets: values(c.secret), Now: time.Unix(now, 0)})
			if c.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			expect(t, err, c.reason, c.want)
		})
	}
}

func TestAReceiverThatKnowsEitherSecretVerifiesARotation(t *testing.T) {
	now := time.Unix(1700000000, 0)
	std := signing.Spec{Scheme: signing.Standard}
	h := asHeaders(signer(t, []signing.Spec{std}, whsec, whsec2).Sign(nil, "del_1", now, []byte(body)))
	for _, known := range []string{whsec, whsec2} {
		if err := verify(t, signing.VerifyInput{Spec: std, Headers: h, Body: []byte(body), Secrets: values(known), Now: now}); err != nil {
			t.Error(err)
		}
	}
	pea := signing.Spec{Scheme: signing.Peanuts}
	h = asHeaders(signer(t, []signing.Spec{pea}, "old", "new").Sign(nil, "del_1", now, []byte(body)))
	for known, accepted := range map[string]bool{"old": true, "new": false} {
		err := verify(t, signing.VerifyInput{Spec: pea, Headers: h, Body: []byte(body), Secrets: values(known)})
		if (err == nil) != accepted {
			t.Errorf("a receiver that knows the %s secret: %v", known, err)
		}
	}
	// A receiver in the middle of its own rotation knows both.
	if err := verify(t, signing.VerifyInput{Spec: pea, Headers: h, Body: []byte(body), Secrets: values("new", "old")}); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("peanuts", "sha256="+strings.Repeat("0", 64), "del_1", "1700000000", []byte(body), plain)
	f.Add("hex", strings.Repeat("f", 64), "", "", []byte("{}\n"), whsec)
	f.Add("standard", "v1,"+strings.Repeat("A", 43)+"= v1,", "del_1", "1700000000", []byte("\xff"), whsec)
	f.Fuzz(func(t *testing.T, scheme, signature, id, timestamp string, body []byte, sec string) {
		spec := signing.Spec{Scheme: signing.Scheme(scheme)}
		in := signing.VerifyInput{Spec: spec, Body: body, Secrets: values(sec), Now: time.Unix(1700000000, 0), Headers: http.Header{
			"X-Peanuts-Signature": {signature}, "X-Webhook-Signature": {signature},
			"webhook-id": {id}, "webhook-timestamp": {timestamp}, "webhook-signature": {signature}}}
		err := signing.Verify(in)
		if err == nil {
			// Nothing but our own signature may pass, and the fuzzer cannot
			// forge one: it must be what we would have sent.
			s, newErr := signing.New([]signing.Spec{spec}, values(sec))
			if newErr != nil {
				t.Fatalf("accepted a signature that cannot be made: %v", newErr)
			}
			seconds, _ := strconv.ParseInt(timestamp, 10, 64)
			sigs := s.Sign(nil, id, time.Unix(seconds, 0), body)
			if own := sigs[len(sigs)-1].Value; !strings.EqualFold(own, strings.TrimSpace(signature)) && !strings.Contains(signature, own) {
				t.Fatalf("accepted %q, would have sent %q", signature, own)
			}
			return
		}
		if _, ok := errors.AsType[*signing.VerifyError](err); !ok {
			t.Fatalf("%T", err)
		}
		if len(sec) > 12 && strings.Contains(err.Error(), sec) {
			t.Fatalf("the error shows the secret: %v", err)
		}
	})
}
