package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// eventID layout: entry-<run:8 hex>-<seq:8 dec>-<unix µs:16 dec>
const eventIDLen = len("entry-") + 8 + 1 + 8 + 1 + 16

const eventPrefix = "entry-"

// appendEventID appends the event id of (run, seq) created at t.
func appendEventID(dst []byte, run uint32, seq int, t time.Time) []byte {
	return fmt.Appendf(dst, "entry-%08x-%08d-%016d", run, seq, t.UnixMicro())
}

// appendEvent appends the ~350 byte event JSON.
func appendEvent(dst []byte, helper string, run uint32, seq int, t time.Time) []byte {
	dst = append(dst, `{"event":"entry.created","timestamp":"`...)
	dst = t.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","helper":{"id":"`...)
	dst = append(dst, helper...)
	dst = append(dst, `","name":"Daily Expenses","command":"/expenses"},"entry":{"id":"`...)
	dst = appendEventID(dst, run, seq, t)
	dst = append(dst, `","data":{"amount":42.5,"category":"Food & Dining","description":"Team lunch at Olive Garden","date":"2025-01-15"},"created_at":"`...)
	dst = t.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	return append(dst, `"},"user":{"id":"user-1"}}`...)
}

// findEvent locates the first event id in body.
func findEvent(body []byte) (run uint32, seq int, sentMicro int64, ok bool) {
	for off := 0; ; {
		i := bytes.Index(body[off:], []byte(eventPrefix))
		if i < 0 || off+i+eventIDLen > len(body) {
			return 0, 0, 0, false
		}
		id := body[off+i : off+i+eventIDLen]
		off += i + len(eventPrefix)
		if id[14] != '-' || id[23] != '-' {
			continue
		}
		r, ok1 := hexU32(id[6:14])
		s, ok2 := dec(id[15:23])
		u, ok3 := dec(id[24:40])
		if ok1 && ok2 && ok3 {
			return r, int(s), u, true
		}
	}
}

func hexU32(b []byte) (v uint32, ok bool) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint32(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint32(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

func dec(b []byte) (v int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, true
}

// sign returns "sha256=<hex HMAC-SHA256 of body>".
func sign(secret, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}
