package config

import (
	"strconv"
	"time"
)

// inRange is v, or nil after reporting that it is outside the range of k.
func (l *loader) inRange(k *key, v any, at *place, path []string) any {
	if k.low == "" {
		return v
	}
	if share, ok := v.(Share); ok && share.Percent != 0 {
		if share.Percent < 1 || share.Percent > 100 {
			l.add(Finding{Code: codeOutOfRange, Message: "a percentage is between 1% and 100%"}, at, path, false)
			return nil
		}
		return v
	}
	low, high := bounds(k)
	if n := magnitude(v); n < low || n > high {
		f := outOfRange(k)
		f.structural = k.kind == kindInt
		l.add(f, at, path, false)
		return nil
	}
	return v
}

// magnitude is what is compared with the range.
func magnitude(v any) int64 {
	switch v := v.(type) {
	case time.Duration:
		return int64(v)
	case Share:
		return v.Bytes
	case int:
		return int64(v)
	case int64:
		return v
	}
	return 0
}

// bounds reads the range of the struct tag.
func bounds(k *key) (low, high int64) {
	read := func(text string) int64 {
		switch k.kind {
		case kindDuration:
			d, _ := parseDuration(text)
			return int64(d)
		case kindInt:
			n, _ := strconv.ParseInt(text, 10, 64)
			return n
		}
		n, _ := parseSize(text)
		return n
	}
	return read(k.low), read(k.high)
}

func outOfRange(k *key) Finding {
	return Finding{Code: codeOutOfRange, Message: "the value must be between " + k.low + " and " + k.high}
}
