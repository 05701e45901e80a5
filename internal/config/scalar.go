package config

import (
	"io/fs"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Share is a part of some total: a percentage, or a number of bytes.
type Share struct {
	Percent int   // 1 to 100; 0 when Bytes counts
	Bytes   int64 // 0 when Percent counts
}

// Of is the share of total, in bytes, and never more than total.
func (s Share) Of(total int64) int64 {
	if s.Percent == 0 {
		return min(s.Bytes, total)
	}
	// Divided first: total times 100 would overflow near the largest sizes.
	return total/100*int64(s.Percent) + total%100*int64(s.Percent)/100
}

// String is the share as the file would have it.
func (s Share) String() string {
	if s.Percent != 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	return formatSize(s.Bytes)
}

// The patterns are those of the JSON Schema too, so that the schema and the
// decoder cannot disagree on what a value looks like.
const (
	durationPattern = `^([0-9]+(\.[0-9]+)?(d|h|m|s|ms))+$`
	sizePattern     = `^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB)$`
	percentPattern  = `^[0-9]{1,3}%$`
	modePattern     = `^0?[0-7]{3}$`
	sha256Pattern   = `^([0-9a-fA-F]{64})?$`
	eventPattern    = `^[a-z0-9_]+(\.[a-z0-9_]+)+$`
	idPattern       = `^[A-Za-z0-9_-]{1,64}$`
	// A token of RFC 9110, section 5.6.2.
	headerPattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$"
)

var (
	durationForm = regexp.MustCompile(durationPattern)
	durationPart = regexp.MustCompile(`([0-9]+(?:\.[0-9]+)?)(d|h|ms|m|s)`)
	sizeForm     = regexp.MustCompile(sizePattern)
	percentForm  = regexp.MustCompile(percentPattern)
	modeForm     = regexp.MustCompile(modePattern)
	sha256Form   = regexp.MustCompile(sha256Pattern)
	eventForm    = regexp.MustCompile(eventPattern)
	idForm       = regexp.MustCompile(idPattern)
	headerForm   = regexp.MustCompile(headerPattern)
	fieldForm    = regexp.MustCompile(`^[^\x00-\x1f\x7f]{1,256}$`)
	webhookForm  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}$`)
	noticeForm   = regexp.MustCompile(`^relay\.(webhook\.failing|webhook\.recovered|delivery\.failed)$`)
	decimalForm  = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
)

// ValidID reports whether id can be that of a helper, a webhook or a sink.
func ValidID(id string) bool { return idForm.MatchString(id) }

const day = 24 * time.Hour

// parseDuration reads "1m30s" or "30d". form is false when the text is no
// duration at all; a duration beyond 292 years is the largest there is, so that
// the caller's range check refuses it.
func parseDuration(text string) (d time.Duration, form bool) {
	if !durationForm.MatchString(text) {
		return 0, false
	}
	units := map[string]time.Duration{"d": day, "h": time.Hour, "m": time.Minute, "s": time.Second, "ms": time.Millisecond}
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		n, ok := scaled(part[1], int64(units[part[2]]))
		if !ok || n > math.MaxInt64-int64(d) {
			return math.MaxInt64, true
		}
		d += time.Duration(n)
	}
	return d, true
}

// parseSize reads "10GiB". form is false when the text is no size at all; a
// size that does not fit is the largest there is.
func parseSize(text string) (n int64, form bool) {
	if !sizeForm.MatchString(text) {
		return 0, false
	}
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			return orLargest(scaled(number, 1<<(10*(i+1)))), true
		}
	}
	return orLargest(scaled(strings.TrimSuffix(text, "B"), 1)), true
}

func orLargest(n int64, ok bool) int64 {
	if !ok {
		return math.MaxInt64
	}
	return n
}

// scaled is number × unit for a decimal number without a sign; ok is false
// when that does not fit.
func scaled(number string, unit int64) (n int64, ok bool) {
	whole, fraction, _ := strings.Cut(number, ".")
	w, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || w > math.MaxInt64/unit {
		return 0, false
	}
	f := 0.0
	if fraction != "" {
		// Digits beyond float64's precision are below a nanosecond and a byte.
		f, _ = strconv.ParseFloat("0."+fraction, 64)
	}
	part := int64(f * float64(unit))
	if part > math.MaxInt64-w*unit {
		return 0, false
	}
	return w*unit + part, true
}

// parsePercent reads "50%"; the range is the caller's to check.
func parsePercent(text string) (n int, form bool) {
	if !percentForm.MatchString(text) {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
	return n, err == nil
}

func parseMode(text string) (mode fs.FileMode, form bool) {
	if !modeForm.MatchString(text) {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 8, 32)
	return fs.FileMode(n), err == nil
}

// formatDuration writes a duration so that [parseDuration] reads it back,
// without the zeros of time.Duration.String.
func formatDuration(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / u.unit; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
			d %= u.unit
		}
	}
	if d > 0 {
		b.WriteString(strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', -1, 64) + "ms")
	}
	return b.String()
}

// formatSize writes a size so that [parseSize] reads it back.
func formatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return strconv.FormatInt(n, 10) + units[i]
}
