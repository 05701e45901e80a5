package rest

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// TimeLayout is how every time is written.
const TimeLayout = "2006-01-02T15:04:05.000Z"

// Time is a moment. The zero value, for "not yet" or "never", is null; what lies
// outside the years 0 to 9999 is written as their beginning or end.
type Time struct{ time.Time }

// At is the Time of t; the zero time stays zero.
func At(t time.Time) Time { return Time{t} }

// MarshalJSON implements [encoding/json.Marshaler].
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	u := t.UTC()
	// RFC 3339 has four digits for the year.
	switch year := u.Year(); {
	case year > 9999:
		u = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
	case year < 0:
		u = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return u.AppendFormat(nil, `"`+TimeLayout+`"`), nil
}

// UnmarshalJSON implements [encoding/json.Unmarshaler]; it takes any RFC 3339
// time and null.
func (t *Time) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		t.Time = time.Time{}
		return nil
	}
	text, err := strconv.Unquote(string(b))
	if err != nil {
		return fmt.Errorf("time %s is not a text", b)
	}
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return fmt.Errorf("time %q is not RFC 3339", text)
	}
	t.Time = parsed.UTC()
	return nil
}

// String is the time as it is written in JSON, "" for the zero value.
func (t Time) String() string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(TimeLayout)
}

// Millis is a duration, written as a number of milliseconds with at most three
// decimals.
type Millis time.Duration

// MarshalJSON implements [encoding/json.Marshaler].
func (m Millis) MarshalJSON() ([]byte, error) {
	us := time.Duration(m).Round(time.Microsecond).Microseconds()
	return strconv.AppendFloat(nil, float64(us)/1000, 'f', -1, 64), nil
}

// UnmarshalJSON implements [encoding/json.Unmarshaler].
func (m *Millis) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*m = 0
		return nil
	}
	ms, err := strconv.ParseFloat(string(b), 64)
	// The bound is that of time.Duration, about 292 years.
	if err != nil || ms > 9e12 || ms < -9e12 {
		return fmt.Errorf("%s is not a number of milliseconds", b)
	}
	*m = Millis(time.Duration(ms*1000) * time.Microsecond)
	return nil
}

// Duration is the value as the standard library counts it.
func (m Millis) Duration() time.Duration { return time.Duration(m) }

// StatusCode is an HTTP status. 0, for "no response", is null.
type StatusCode int

// MarshalJSON implements [encoding/json.Marshaler].
func (c StatusCode) MarshalJSON() ([]byte, error) {
	if c == 0 {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, int64(c), 10), nil
}
