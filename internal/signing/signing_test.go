package signing_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

const (
	plain  = "a secret of words, not base64"
	whsec  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	whsec2 = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	body   = `{"event":"entry.created","entry":{"id":"e","data":{"amount":42.5,"category":"Food & Dining"}}}`
)

func signer(t testing.TB, specs []signing.Spec, secrets ...string) *signing.Signer {
	t.Helper()
	s, err := signing.New(specs, values(secrets...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func values(secrets ...string) []secret.String {
	var list []secret.String
	for _, s := range secrets {
		list = append(list, secret.New(s))
	}
	return list
}

func asHeaders(sigs []delivery.Header) http.Header {
	h := make(http.Header)
	for _, s := range sigs {
		h[s.Name] = append(h[s.Name], s.Value)
	}
	return h
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexMAC(key, text string) string { return hex.EncodeToString(mac([]byte(key), text)) }

// The vectors are those of the Standard Webhooks reference libraries (their
// test suites sign this payload with this secret) and of Svix's documentation
// of manual verification, from which the specification came.
func TestStandardWebhooksVectors(t *testing.T) {
	for _, v := range []struct {
		secret, id, body, want string
		at                     int64
	}{
		{whsec, "msg_p5jXN8AQM9LWM0D4loKWxJek", `{"test": 2432232314}`, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", 1614265330},
		{"whsec_plJ3nmyCDGBKInavdOK15jsl", "msg_loFOjxBNrRLzqYUf", `{"event_type":"ping","data":{"success":true}}`,
			"v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=", 1731705121},
	} {
		for _, sec := range []string{v.secret, strings.TrimPrefix(v.secret, "whsec_")} {
			sigs := signer(t, []signing.Spec{{Scheme: signing.Standard}}, sec).Sign(nil, v.id, time.Unix(v.at, 0), []byte(v.body))
			want := []delivery.Header{{Name: "webhook-id", Value: v.id}, {Name: "webhook-timestamp", Value: strconv.FormatInt(v.at, 10)},
				{Name: "webhook-signature", Value: v.want}}
			if !slices.Equal(sigs, want) {
				t.Errorf("signed %q\n got %v\nwant %v", v.body, sigs, want)
			}
		}
	}
}

func TestEachSchemeWritesItsHeader(t *testing.T) {
	at := time.Unix(1700000000, 999)
	for name, c := range map[string]struct {
		specs   []signing.Spec
		secrets []string
		want    []delivery.Header
	}{
		"peanuts": {[]signing.Spec{{Scheme: signing.Peanuts}}, []string{plain},
			[]delivery.Header{{Name: "X-Peanuts-Signature", Value: "sha256=" + hexMAC(plain, body)}}},
		"hex": {[]signing.Spec{{Scheme: signing.Hex}}, []string{plain},
			[]delivery.Header{{Name: "X-Webhook-Signature", Value: hexMAC(plain, body)}}},
		"hex renamed": {[]signing.Spec{{Scheme: signing.Hex, Header: "X-Peanuts-Signature"}}, []string{plain},
			[]delivery.Header{{Name: "X-Peanuts-Signature", Value: hexMAC(plain, body)}}},
		"a whsec_ secret is literal for peanuts": {[]signing.Spec{{Scheme: signing.Peanuts}}, []string{whsec},
			[]delivery.Header{{Name: "X-Peanuts-Signature", Value: "sha256=" + hexMAC(whsec, body)}}},
		"several in the order of the file": {
			[]signing.Spec{{Scheme: signing.Standard}, {Scheme: signing.Hex}, {Scheme: signing.Peanuts}}, []string{whsec},
			[]delivery.Header{
				{Name: "webhook-id", Value: "del_1"}, {Name: "webhook-timestamp", Value: "1700000000"},
				{Name: "webhook-signature", Value: standard(t, whsec, "del_1.1700000000."+body)},
				{Name: "X-Webhook-Signature", Value: hexMAC(whsec, body)},
				{Name: "X-Peanuts-Signature", Value: "sha256=" + hexMAC(whsec, body)}}},
		"rotation": {
			[]signing.Spec{{Scheme: signing.Peanuts}, {Scheme: signing.Hex}, {Scheme: signing.Standard, Header: "svix-signature"}}, []string{whsec, whsec2},
			[]delivery.Header{
				{Name: "X-Peanuts-Signature", Value: "sha256=" + hexMAC(whsec, body)},
				{Name: "X-Peanuts-Signature-Previous", Value: "sha256=" + hexMAC(whsec2, body)},
				{Name: "X-Webhook-Signature", Value: hexMAC(whsec, body)},
				{Name: "X-Webhook-Signature-Previous", Value: hexMAC(whsec2, body)},
				{Name: "svix-id", Value: "del_1"}, {Name: "svix-timestamp", Value: "1700000000"},
				{Name: "svix-signature", Value: standard(t, whsec, "del_1.1700000000."+body) + " " + standard(t, whsec2, "del_1.1700000000."+body)}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := signer(t, c.specs, c.secrets...)
			if got := s.Sign(nil, "del_1", at, []byte(body)); !slices.Equal(got, c.want) {
				t.Errorf("\n got %v\nwant %v", got, c.want)
			}
			for _, h := range c.want {
				if !slices.Contains(s.HeaderNames(), h.Name) {
					t.Errorf("HeaderNames %v lacks %s", s.HeaderNames(), h.Name)
				}
			}
		})
	}
}

func TestTheHeadersOfASignatureAreNamed(t *testing.T) {
	for spec, want := range map[signing.Spec][]string{
		{Scheme: signing.Peanuts}:                            {"X-Peanuts-Signature"},
		{Scheme: signing.Hex, Header: "X-Sig"}:               {"X-Sig"},
		{Scheme: signing.Standard}:                           {"webhook-id", "webhook-timestamp", "webhook-signature"},
		{Scheme: signing.Standard, Header: "Svix-Signature"}: {"Svix-id", "Svix-timestamp", "Svix-Signature"},
		{Scheme: "md5"}:                                      nil,
	} {
		if got := signing.HeaderNames(spec); !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", spec, got, want)
		}
	}
}

func standard(t *testing.T, sec, text string) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sec, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	return "v1," + base64.StdEncoding.EncodeToString(mac(key, text))
}

func TestWhatNoReceiverCouldVerifyIsRefused(t *testing.T) {
	std, pea := []signing.Spec{{Scheme: signing.Standard}}, []signing.Spec{{Scheme: signing.Peanuts}}
	for name, c := range map[string]struct {
		specs   []signing.Spec
		secrets []string
		want    string
	}{
		"no scheme":            {nil, []string{plain}, "no signature scheme"},
		"no secret":            {pea, nil, "no secret"},
		"empty secret":         {pea, []string{plain, ""}, "secret 2 is empty"},
		"three secrets":        {pea, []string{"a", "b", "c"}, "3 secrets"},
		"unknown scheme":       {[]signing.Spec{{Scheme: "sha1"}}, []string{plain}, `unknown signature scheme "sha1"`},
		"same header":          {[]signing.Spec{{Scheme: signing.Peanuts}, {Scheme: signing.Hex, Header: "x-peanuts-SIGNATURE"}}, []string{plain}, "both on header"},
		"same header, twice":   {[]signing.Spec{{Scheme: signing.Peanuts}, {Scheme: signing.Peanuts}}, []string{plain}, "both on header"},
		"on the rotation's":    {[]signing.Spec{{Scheme: signing.Peanuts}, {Scheme: signing.Hex, Header: "X-Peanuts-Signature-Previous"}}, []string{plain}, "both on header"},
		"on the standard id":   {[]signing.Spec{{Scheme: signing.Standard}, {Scheme: signing.Hex, Header: "Webhook-Id"}}, []string{whsec}, "both on header"},
		"bad header":           {[]signing.Spec{{Scheme: signing.Hex, Header: "X Signature"}}, []string{plain}, "not a valid header name"},
		"line break in header": {[]signing.Spec{{Scheme: signing.Hex, Header: "X-A\r\nX-B"}}, []string{plain}, "not a valid header name"},
		"taken header":         {[]signing.Spec{{Scheme: signing.Hex, Header: "content-length"}}, []string{plain}, "meaning of its own"},
		"our header":           {[]signing.Spec{{Scheme: signing.Hex, Header: "X-Peanuts-Event"}}, []string{plain}, "meaning of its own"},
		"standard renamed":     {[]signing.Spec{{Scheme: signing.Standard, Header: "X-Sig"}}, []string{whsec}, `must end in "-signature"`},
		"standard, words":      {std, []string{plain}, "openssl rand -base64 32"},
		"standard, second bad": {std, []string{whsec, "whsec_###"}, "secret 2 does not work"},
		"standard, url-safe":   {std, []string{"whsec_ab-_ab-_"}, "URL-safe"},
		"standard, line break": {std, []string{"whsec_MfKQ9r8G\nKYqrTwjU"}, "line break"},
		"standard, nothing":    {std, []string{"whsec_"}, "nothing follows"},
		"standard, cut":        {std, []string{"whsec_MfKQ9"}, "not base64"},
		"standard, unpadded":   {std, []string{"whsec_MfKQ9r"}, "lacks the padding"},
		"standard, padding":    {std, []string{"whsec_QQ="}, "not base64"},
		"standard, Svix's v1,": {std, []string{"v1," + whsec}, "not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := signing.New(c.specs, values(c.secrets...))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			for _, s := range c.secrets {
				if len(s) > 8 && strings.Contains(err.Error(), s) {
					t.Errorf("the error shows the secret: %v", err)
				}
			}
		})
	}
}

func TestEverySchemeVerifiesWhatItSignedAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 80).Draw(t, "key")
		prefix := rapid.SampledFrom([]string{"", "whsec_"}).Draw(t, "prefix")
		sec := prefix + base64.StdEncoding.EncodeToString(key)
		scheme := rapid.SampledFrom([]signing.Scheme{signing.Peanuts, signing.Hex, signing.Standard}).Draw(t, "scheme")
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		now := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "now"), 0)
		spec := signing.Spec{Scheme: scheme}
		s, err := signing.New([]signing.Spec{spec}, values(sec))
		if err != nil {
			t.Fatal(err)
		}
		in := signing.VerifyInput{Spec: spec, Headers: asHeaders(s.Sign(nil, "del_x", now, payload)), Body: payload, Secrets: values(sec), Now: now}
		if err := signing.Verify(in); err != nil {
			t.Fatalf("own signature refused: %v", err)
		}
		in.Body = append(slices.Clone(payload), 'x')
		if signing.Verify(in) == nil {
			t.Fatal("a longer body was accepted")
		}
		key[0] ^= 0x80 // not appended zeroes, which an HMAC key has anyway (RFC 2104)
		in.Body, in.Secrets = payload, values(prefix+base64.StdEncoding.EncodeToString(key))
		if signing.Verify(in) == nil {
			t.Fatal("another secret was accepted")
		}
	})
}

func TestASignerIsSafeForConcurrentUse(t *testing.T) {
	s := signer(t, []signing.Spec{{Scheme: signing.Peanuts}, {Scheme: signing.Standard}}, whsec, whsec2)
	at := time.Unix(1700000000, 0)
	want := s.Sign(nil, "del_1", at, []byte(body))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if got := s.Sign(nil, "del_1", at, []byte(body)); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkSign(b *testing.B) {
	for _, scheme := range []signing.Scheme{signing.Peanuts, signing.Standard} {
		b.Run(string(scheme), func(b *testing.B) {
			s := signer(b, []signing.Spec{{Scheme: scheme}}, whsec)
			payload, at := []byte(body), time.Unix(1700000000, 0)
			b.ReportAllocs()
			for b.Loop() {
				s.Sign(nil, "del_1", at, payload)
			}
		})
	}
}
