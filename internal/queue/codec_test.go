package queue

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// sealed makes a value of any bytes whose checksum is right, so that a fuzzer
// reaches the fields behind it.
func sealed(key, fields []byte) []byte {
	return seal(append([]byte{valueVersion}, fields...), 0, key)
}

func exampleAttempt() *delivery.Attempt {
	return &delivery.Attempt{Number: 3, Started: time.UnixMicro(1).UTC(), Duration: time.Second, Reused: true, Remote: "[::1]:443",
		Signatures: []delivery.Header{{Name: "X-Peanuts-Signature", Value: "sha256=00"}}, Outcome: delivery.Retry, Status: 503,
		Headers: []delivery.Header{{Name: "Retry-After", Value: "5"}}, Body: []byte("busy"), BodyTruncated: true,
		Code: delivery.CodeStatus, Error: "503", RetryAfter: 5 * time.Second, Rule: delivery.RuleServerError, State: delivery.Pending,
		NextIn: time.Minute, Message: "row 7 was added", RemoteURL: "https://sheet.example/7"}
}

// fuzzDecoder checks that a decoder never panics on damaged values or on
// arbitrary fields under a right checksum, and that what it takes is written
// back to something that it takes again as the same.
func fuzzDecoder[T any](f *testing.F, key []byte, decode func(key, val []byte) (T, error), encode func(v T, key []byte) []byte) {
	f.Fuzz(func(t *testing.T, fields []byte) {
		_, _ = decode(key, fields) // must not panic; nearly always damage
		v, err := decode(key, sealed(key, fields))
		if err != nil {
			return
		}
		again := encode(v, key)
		w, err := decode(key, again)
		if err != nil {
			t.Fatalf("own encoding is not taken: %v", err)
		}
		if !bytes.Equal(encode(w, key), again) {
			t.Fatalf("not stable: %+v, %+v", v, w)
		}
	})
}

func addFields(f *testing.F, val []byte) {
	f.Add(val[1 : len(val)-4])
	f.Add([]byte{})
}

func FuzzPending(f *testing.F) {
	key := appendLaneSeq(nil, kindReady, 1, 2)
	addFields(f, (&pendingRow{format: FormatEvent, replay: true, ref: payloadRef{1, 20000}, attempts: 2, tries: 1, charge: 500,
		accepted: 1700000000000, status: 503, code: "status", errText: "503"}).append(nil, key))
	addFields(f, (&pendingRow{attempts: 1, crashes: 2, code: "plugin_crash"}).append(nil, key))
	fuzzDecoder(f, key, decodePending, func(p pendingRow, key []byte) []byte { return p.append(nil, key) })
}

func FuzzEvent(f *testing.F) {
	key := appendEventKey(nil, payloadRef{eventAccepted, 20000}, 7)
	type row struct {
		EventRecord
		own bool
	}
	addFields(f, appendEvent(nil, key, &EventRecord{ID: "evt_x", Helper: "h", Type: "entry.created", EntryID: "e", Payloads: [2][]byte{[]byte("{}"), nil},
		Deliveries: []NewDelivery{{1, 0}}, Skipped: []Skip{{2, delivery.SkipDisabled}}}, true))
	fuzzDecoder(f, key, func(key, val []byte) (row, error) {
		r, own, err := decodeEvent(key, val, 1, 7)
		return row{r, own}, err
	}, func(r row, key []byte) []byte { return appendEvent(nil, key, &r.EventRecord, r.own) })
}

func FuzzFinished(f *testing.F) {
	key := appendFinishedKey(nil, classFailed, 20000, 1, 7)
	addFields(f, (&finishedRow{typ: "entry.created", entry: "e", attempts: 3, last: exampleAttempt(), request: 9}).append(nil, key))
	addFields(f, (&finishedRow{ownID: "mine", code: delivery.CodeDropped}).append(nil, key))
	fuzzDecoder(f, key, decodeFinished, func(h finishedRow, key []byte) []byte { return h.append(nil, key) })
}

func FuzzAttempt(f *testing.F) {
	key := appendAttemptKey(nil, 20000, 1, 7, 3)
	type row struct {
		a       delivery.Attempt
		request uint64
	}
	addFields(f, appendAttemptRow(nil, key, exampleAttempt(), 5))
	addFields(f, appendAttemptRow(nil, key, &delivery.Attempt{Number: 1, Outcome: delivery.Crashed}, 0))
	fuzzDecoder(f, key, func(key, val []byte) (row, error) {
		a, request, err := decodeAttemptRow(key, val)
		return row{a, request}, err
	}, func(r row, key []byte) []byte { return appendAttemptRow(nil, key, &r.a, r.request) })
}

func FuzzRepeat(f *testing.F) {
	key := appendRepeatKey(nil, 20000, [16]byte{1})
	addFields(f, (&repeatRow{at: 5, seq: 6, ownID: "mine", deliveries: []NewDelivery{{1, 1}}}).append(nil, key))
	fuzzDecoder(f, key, decodeRepeat, func(r repeatRow, key []byte) []byte { return r.append(nil, key) })
}

func FuzzReplayJob(f *testing.F) {
	key := replayKey("rpl_1")
	addFields(f, (&ReplayJob{Lane: 1, States: []delivery.State{delivery.Failed}, Since: time.UnixMilli(5), EventType: "x", Rate: 0.5, Cursor: 9, upto: 10}).append(nil, key))
	addFields(f, (&ReplayJob{Lane: 1, EventID: "evt_1", Where: ".a > 1", Undecided: 1, Trouble: "del_1: no", upto: 10}).append(nil, key))
	fuzzDecoder(f, key, decodeReplay, func(j ReplayJob, key []byte) []byte { return j.append(nil, key) })
}

func FuzzEntryState(f *testing.F) {
	key := stateKey(1, sinkNumber("slack"), "e1")
	addFields(f, appendEntryState(nil, key, []byte("1700000000.000100")))
	addFields(f, appendEntryState(nil, key, bytes.Repeat([]byte{1}, MaxEntryState)))
	fuzzDecoder(f, key, decodeEntryState, func(state []byte, key []byte) []byte { return appendEntryState(nil, key, state) })
}

func FuzzLine(f *testing.F) {
	key := lineKey(3, 7)
	addFields(f, line{head: 5, from: 6, n: 2}.append(nil, key))
	fuzzDecoder(f, key, decodeLine, func(l line, key []byte) []byte { return l.append(nil, key) })
}

func FuzzLaneLife(f *testing.F) {
	key := laneLifeKey(3)
	addFields(f, laneLife{removed: true, identity: homeIdentity().digest(), at: 1700000000000, wall: 1700000000001}.append(nil, key))
	addFields(f, laneLife{returned: true, identity: awayIdentity().digest()}.append(nil, key))
	fuzzDecoder(f, key, decodeLaneLife, func(l laneLife, key []byte) []byte { return l.append(nil, key) })
}

func FuzzState(f *testing.F) {
	key := metaLedgerKey()
	addFields(f, (&ledger{relayTime: 1, lastSeq: 2, nextLane: 3}).append(nil, key))
	addFields(f, (&laneCounts{ready: 1, readyMark: 2}).append(nil, key))
	addFields(f, (&laneCounts{ready: 1, readyMark: 2, following: 3, lines: 1, followingMark: 4}).append(nil, key))
	addFields(f, (&dayRow{firstSeq: 1, gone: 3}).append(nil, key))
	addFields(f, appendQuarantine(nil, key, "why", 1, []byte("raw")))
	f.Fuzz(func(t *testing.T, fields []byte) {
		val := sealed(key, fields)
		for _, v := range [][]byte{fields, val} {
			_, _ = decodeLedger(key, v)
			_, _ = decodeLaneCounts(key, v)
			_, _ = decodeDay(key, v)
			_, _ = decodeDue(key, v)
			_, _ = decodePlain(key, v)
			_, _ = decodeRequest(key, v)
			_, _, _, _ = decodeQuarantine(key, v)
		}
		stable(t, key, val, decodeLaneCounts, func(c laneCounts) []byte { return c.append(nil, key) })
		stable(t, key, val, decodeLedger, func(l ledger) []byte { return l.append(nil, key) })
		stable(t, key, val, decodeDay, func(d dayRow) []byte { return d.append(nil, key) })
		stable(t, key, val, decodeDue, func(due int64) []byte { return appendDue(nil, key, due) })
		stable(t, key, val, decodePlain, func(text string) []byte { return appendPlain(nil, key, text) })
		type aside struct {
			reason string
			at     int64
			raw    []byte
		}
		stable(t, key, val, func(key, val []byte) (q aside, err error) {
			q.reason, q.at, q.raw, err = decodeQuarantine(key, val)
			return q, err
		}, func(q aside) []byte { return appendQuarantine(nil, key, q.reason, q.at, q.raw) })
	})
}

// stable fails when what a decoder takes is not what it takes again once it is encoded.
func stable[T any](t *testing.T, key, val []byte, decode func(key, val []byte) (T, error), encode func(T) []byte) {
	t.Helper()
	v, err := decode(key, val)
	if err != nil {
		return
	}
	again := encode(v)
	w, err := decode(key, again)
	if err != nil || !bytes.Equal(encode(w), again) {
		t.Fatalf("%+v became %+v, %v", v, w, err)
	}
}

func FuzzRequestTemplate(f *testing.F) {
	key := templateKey(7)
	f.Add(appendRequest(nil, &delivery.Request{Method: "POST", URL: "https://x.example", Headers: []delivery.Header{{Name: "A", Value: "${B}"}}}))
	f.Add([]byte{})
	fuzzDecoder(f, key, func(key, val []byte) (delivery.Request, error) {
		r, err := decodeRequest(key, val)
		if err != nil {
			return delivery.Request{}, err
		}
		return *r, nil
	}, func(r delivery.Request, key []byte) []byte { return sealed(key, appendRequest(nil, &r)) })
}

// A cursor comes from outside. What is taken is what was given out, to the byte.
func FuzzCursor(f *testing.F) {
	for _, text := range []string{"", "1.1", "ffffffffffffffff.ffffffff", "01.1", "1.1.1", "-1.1", "1", ".", "1.100000000"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseCursor(text)
		switch {
		case err == nil && at.cursor() != text:
			t.Errorf("%q is taken for %q", text, at.cursor())
		case err != nil && !errors.Is(err, ErrBadCursor):
			t.Errorf("%q: %v", text, err)
		}
	})
}

// FORMAT is a file that people may edit. What is taken is written back as the same, and
// what is refused names file and remedy.
func FuzzMarker(f *testing.F) {
	for _, text := range []string{`{"format":3,"store":"00000a0b0c","created":"2026-01-01T00:00:00Z","initialised":true}`, `{"format":4,"store":"1"}`, `{"format":1,"store":"-1"}`,
		`{"format":1e99}`, `{}`, `null`, ``, `{"format":1,"store":"fffffffffffffffff"}`} {
		f.Add([]byte(text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, formatFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := readMarker(dir)
		if err != nil {
			if fe, ok := errors.AsType[*FormatError](err); !ok || fe.File == "" || fe.Remedy == "" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if err := writeMarker(dir, m); err != nil {
			t.Fatalf("%q was taken and cannot be written: %v", text, err)
		}
		if again, err := readMarker(dir); err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%q became %+v and %+v, %v", text, m, again, err)
		}
	})
}

func TestAnAttemptIsReadBackAsItWas(t *testing.T) {
	text := rapid.StringN(0, 40, 60)
	headers := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) delivery.Header {
		return delivery.Header{Name: text.Draw(t, "name"), Value: text.Draw(t, "value")}
	}), 1, 4)
	span := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "us")) * time.Microsecond
	})
	rapid.Check(t, func(t *rapid.T) {
		a := delivery.Attempt{Number: rapid.IntRange(0, 1000).Draw(t, "number"), Started: time.UnixMicro(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "at")).UTC(),
			Duration: span.Draw(t, "d"), Phases: delivery.Phases{DNS: span.Draw(t, "dns"), Connect: span.Draw(t, "connect"), TLS: span.Draw(t, "tls"),
				FirstByte: span.Draw(t, "first")}, Reused: rapid.Bool().Draw(t, "reused"), Remote: text.Draw(t, "remote"),
			Signatures: headers.Draw(t, "signatures"), Outcome: delivery.Outcome(rapid.Byte().Draw(t, "outcome")),
			Status: rapid.IntRange(0, 999).Draw(t, "status"), Headers: headers.Draw(t, "headers"),
			Body: rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "body"), Message: text.Draw(t, "message"), RemoteURL: text.Draw(t, "remote url"),
			BodyTruncated: rapid.Bool().Draw(t, "cut"), Code: delivery.Code(text.Draw(t, "code")), Error: text.Draw(t, "error"),
			RetryAfter: span.Draw(t, "after"), Rule: delivery.Rule(text.Draw(t, "rule")), State: delivery.State(rapid.Byte().Draw(t, "state")), NextIn: span.Draw(t, "next")}
		key := appendAttemptKey(nil, 1, 2, 3, 4)
		val := appendAttemptRow(nil, key, &a, 77)
		b, request, err := decodeAttemptRow(key, val)
		if err != nil || request != 77 || !reflect.DeepEqual(a, b) {
			t.Fatalf("%+v became %+v, %d, %v", a, b, request, err)
		}
		val[rapid.IntRange(0, len(val)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, _, err := decodeAttemptRow(key, val); err == nil {
			t.Fatal("a flipped bit was not noticed")
		}
	})
}

func TestAValueUnderAnotherKeyIsDamage(t *testing.T) {
	key := appendLaneSeq(nil, kindReady, 1, 1)
	val := (&pendingRow{}).append(nil, key)
	if _, err := decodePending(appendLaneSeq(nil, kindReady, 1, 2), val); err == nil {
		t.Error("taken")
	}
}

// No field of an attempt may be forgotten by the codec.
func TestEveryFieldOfAnAttemptIsStored(t *testing.T) {
	fields := reflect.TypeFor[delivery.Attempt]()
	for i := range fields.NumField() {
		a := exampleAttempt()
		a.Phases = delivery.Phases{DNS: 1e3, Connect: 2e3, TLS: 3e3, FirstByte: 4e3}
		if name := fields.Field(i).Name; name == "Request" || name == "EntryState" {
			continue // rows of their own
		}
		if reflect.ValueOf(*a).Field(i).IsZero() {
			t.Errorf("the example lacks %s", fields.Field(i).Name)
		}
		key := []byte{kindAttempt}
		b, _, err := decodeAttemptRow(key, appendAttemptRow(nil, key, a, 0))
		if err != nil || !reflect.DeepEqual(reflect.ValueOf(*a).Field(i).Interface(), reflect.ValueOf(b).Field(i).Interface()) {
			t.Errorf("%s is not stored: %v", fields.Field(i).Name, err)
		}
	}
}
