package event

import "time"

// parseTime reads a time of RFC 3339, section 5.6, in UTC and cut to
// milliseconds. Like there, T and Z may be lower case, the fraction may have
// any number of digits, and the second 60 is that of a leap second, 23:59:60
// UTC, which becomes the first second of the next day as in POSIX time. ok is
// false when the time lies outside the years 0000 to 9999 of UTC, for which RFC
// 3339 has no form.
func parseTime(s []byte) (t time.Time, ok bool) {
	const dateTime = len("2025-01-15T14:32:00")
	if len(s) <= dateTime || s[4] != '-' || s[7] != '-' || s[10]|0x20 != 't' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	century, ok1 := twoDigits(s, 0, 99)
	year, ok2 := twoDigits(s, 2, 99)
	month, ok3 := twoDigits(s, 5, 12)
	day, ok4 := twoDigits(s, 8, 31)
	hour, ok5 := twoDigits(s, 11, 23)
	minute, ok6 := twoDigits(s, 14, 59)
	second, ok7 := twoDigits(s, 17, 60)
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7) || month == 0 {
		return time.Time{}, false
	}
	milli, rest, ok := fraction(s[dateTime:])
	if !ok {
		return time.Time{}, false
	}
	offset, ok := zone(rest)
	if !ok {
		return time.Time{}, false
	}
	local := time.Date(century*100+year, time.Month(month), day, hour, minute, min(second, 59),
		milli*int(time.Millisecond), time.UTC)
	if local.Day() != day {
		return time.Time{}, false // such as 30 February
	}
	t = local.Add(-offset)
	if second == 60 {
		if t.Hour() != 23 || t.Minute() != 59 {
			return time.Time{}, false
		}
		t = t.Add(time.Second)
	}
	return t, 0 <= t.Year() && t.Year() <= 9999
}

// fraction reads an optional fraction of a second.
func fraction(s []byte) (milli int, rest []byte, ok bool) {
	if s[0] != '.' {
		return 0, s, true
	}
	i, unit := 1, 100
	for ; i < len(s) && isDigit(s[i]); i++ {
		milli += int(s[i]-'0') * unit
		unit /= 10
	}
	return milli, s[i:], i > 1
}

// zone reads Z or an offset from UTC such as +05:30.
func zone(s []byte) (offset time.Duration, ok bool) {
	if len(s) == 1 && s[0]|0x20 == 'z' {
		return 0, true
	}
	if len(s) != len("+00:00") || s[0] != '+' && s[0] != '-' || s[3] != ':' {
		return 0, false
	}
	hours, ok1 := twoDigits(s, 1, 23)
	minutes, ok2 := twoDigits(s, 4, 59)
	offset = time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, ok1 && ok2
}

func twoDigits(s []byte, at, most int) (v int, ok bool) {
	if !isDigit(s[at]) || !isDigit(s[at+1]) {
		return 0, false
	}
	v = int(s[at]-'0')*10 + int(s[at+1]-'0')
	return v, v <= most
}

// appendTime appends t as a JSON string in the one form that payloads have:
// that of Date.prototype.toISOString (ECMA-262, 21.4.1.32), three decimals and
// Z. t is in the years 0000 to 9999.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	milli := t.Nanosecond() / int(time.Millisecond)
	dst = appendTwo(append(dst, '"'), year/100)
	dst = appendTwo(dst, year%100)
	dst = appendTwo(append(dst, '-'), int(month))
	dst = appendTwo(append(dst, '-'), day)
	dst = appendTwo(append(dst, 'T'), hour)
	dst = appendTwo(append(dst, ':'), minute)
	dst = appendTwo(append(dst, ':'), second)
	dst = append(dst, '.', byte('0'+milli/100))
	return append(appendTwo(dst, milli%100), 'Z', '"')
}

func appendTwo(dst []byte, v int) []byte { return append(dst, byte('0'+v/10%10), byte('0'+v%10)) }
