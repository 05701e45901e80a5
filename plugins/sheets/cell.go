package main

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/api/sheets/v4"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// maxCell is how many characters a cell holds
// (https://support.google.com/drive/answer/37603). Google counts as JavaScript does,
// in units of UTF-16.
const maxCell = 50_000

// maxExact is up to where all whole numbers are numbers of a sheet, which are doubles.
const maxExact = 1 << 53

// value is what a cell gets; nil is an empty cell.
type value = *sheets.ExtendedValue

// text is a cell that is text, whatever is in it.
func text(s string) value {
	if s == "" {
		return nil
	}
	return &sheets.ExtendedValue{StringValue: new(cut(s))}
}

// cut shortens s to what a cell holds.
func cut(s string) string {
	if len(s) <= maxCell {
		return s // a unit of UTF-16 is at least one byte
	}
	units, short := 0, 0
	for i, r := range s {
		if units <= maxCell-1 {
			short = i // what is before i has room together with the ellipsis
		}
		units++
		if r > 0xFFFF {
			units++
		}
		if units > maxCell {
			return s[:short] + "…"
		}
	}
	return s
}

// cellOf is a JSON value as a cell: true and false, a number that a double can hold
// exactly as it was written, and text for all others.
func cellOf(raw json.RawMessage) value {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil
	}
	switch raw[0] {
	case 't', 'f':
		return &sheets.ExtendedValue{BoolValue: new(raw[0] == 't')}
	case 'n', '"', '{', '[':
		return text(sinks.Field{Value: raw}.Text())
	}
	if f, ok := exact(string(raw)); ok {
		return &sheets.ExtendedValue{NumberValue: new(f)}
	}
	return text(string(raw))
}

// exact is the number that a sheet would show as it was written, if there is one.
func exact(number string) (float64, bool) {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.Abs(f) > maxExact {
		return 0, false
	}
	if f == 0 {
		f = 0 // not -0
	}
	return f, sameDecimal(number, strconv.FormatFloat(f, 'e', -1, 64))
}

// sameDecimal compares decimal numbers by their digits, without computing powers of
// ten that somebody wrote to make that take for ever.
func sameDecimal(a, b string) bool {
	digitsA, expA, okA := decimal(a)
	digitsB, expB, okB := decimal(b)
	return okA && okB && digitsA == digitsB && expA == expB
}

// decimal is a number as 0.digits × 10^exp, with the sign before the digits.
func decimal(number string) (digits string, exp int64, ok bool) {
	sign := ""
	if rest, negative := strings.CutPrefix(number, "-"); negative {
		sign, number = "-", rest
	}
	mantissa, power := number, ""
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		mantissa, power = number[:i], number[i+1:]
		n, err := strconv.ParseInt(power, 10, 32)
		if err != nil {
			return "", 0, false
		}
		exp = n
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	exp += int64(len(whole)) - int64(len(whole+fraction)-len(digits))
	digits = strings.TrimRight(digits, "0")
	if digits == "" {
		return "", 0, true
	}
	return sign + digits, exp, true
}

// number is a cell for the order of an event.
func sequenceCell(n uint64) value {
	if n == 0 {
		return nil
	}
	return cellOf(json.RawMessage(strconv.FormatUint(n, 10)))
}

// timeCell is a time as text that sorts as the times do.
func timeCell(t time.Time) value {
	if t.IsZero() {
		return nil
	}
	return text(t.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}

// cellText is what Google gives for a cell without its format, as text.
func cellText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strings.ToUpper(strconv.FormatBool(v))
	}
	return ""
}

// title is a name as a header: not longer than people read.
func title(name string) string {
	if !utf8.ValidString(name) {
		name = strings.ToValidUTF8(name, "\uFFFD")
	}
	return sinks.Truncate(strings.TrimSpace(name), maxTitle)
}
