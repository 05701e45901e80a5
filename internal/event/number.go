package event

import "strconv"

const (
	// maxDigits is the most digits that the shortest form of a double has
	// (ECMA-262, 6.1.6.1.20; IEEE 754: 53 bits need at most 17). A number with
	// more significant digits is therefore never the shortest form of anything.
	maxDigits = 17
	// exactDigits is how many decimal digits every double of normal size keeps
	// (DBL_DIG of C): different numbers with so few digits are different
	// doubles, so each is its double's shortest form.
	exactDigits = 15
	// safePoint bounds the exponents for which exactDigits holds with room to
	// spare: normal doubles reach from 2.2e-308 to 1.8e308.
	safePoint = 300
	// minPoint and maxPoint bound decimal.point for numbers that are neither
	// rounded to zero nor to infinity: 5e-324 is 0.5e-323, 1.8e308 is 0.18e309.
	minPoint = -323
	maxPoint = 309
	// maxExponent is where reading an exponent stops to count. It is more than
	// any text has bytes, so zeros in the number cannot make up for it.
	maxExponent = 1 << 48
)

// decimal is a number other than zero, without its sign, exactly:
// 0.d1d2…dn × 10^point, where d1 and dn are not 0.
type decimal struct {
	digits [maxDigits]byte
	n      int // more than maxDigits: not all are kept
	point  int64
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number reads the number at pos and appends its canonical form.
func (s *scanner) number(dst []byte) (out []byte, err *Error) {
	in, start := s.in, s.pos
	if in[s.pos] == '-' {
		s.pos++
	}
	first := s.pos
	if err := s.digits(); err != nil {
		return dst, err
	}
	if in[first] == '0' && s.pos > first+1 {
		return dst, malformed(CodeInvalidJSON, first, "invalid JSON: a number with a leading zero")
	}
	integer := true
	if s.pos < len(in) && in[s.pos] == '.' {
		integer = false
		s.pos++
		if err := s.digits(); err != nil {
			return dst, err
		}
	}
	if s.pos < len(in) && (in[s.pos] == 'e' || in[s.pos] == 'E') {
		integer = false
		s.pos++
		if s.pos < len(in) && (in[s.pos] == '+' || in[s.pos] == '-') {
			s.pos++
		}
		if err := s.digits(); err != nil {
			return dst, err
		}
	}
	token := in[start:s.pos]
	if integer && s.pos-first <= exactDigits && (in[first] != '0' || first == start) {
		return append(dst, token...), nil
	}
	out, exact := appendNumber(dst, token)
	s.unstable = s.unstable || !exact
	return out, nil
}

// digits reads one or more digits.
func (s *scanner) digits() *Error {
	from := s.pos
	for s.pos < len(s.in) && isDigit(s.in[s.pos]) {
		s.pos++
	}
	if s.pos == from {
		return s.unexpected("a digit")
	}
	return nil
}

// appendNumber appends a checked JSON number the way ECMAScript writes it. When
// JavaScript would make another number of it, exact is false and it is appended
// as it is.
func appendNumber(dst, token []byte) (out []byte, exact bool) {
	var d decimal
	negative := d.read(token)
	switch {
	case d.n == 0:
		// Number::toString gives "0" for -0 too.
		return append(dst, '0'), true
	case !d.isShortest():
		return append(dst, token...), false
	}
	if negative {
		dst = append(dst, '-')
	}
	return d.append(dst), true
}

// read sets d to the number that token spells; d.n is 0 for every zero. Its
// cost does not depend on the size of the exponent.
func (d *decimal) read(token []byte) (negative bool) {
	if token[0] == '-' {
		negative = true
		token = token[1:]
	}
	zeros, fraction := 0, false // zeros: seen since the last other digit
	i := 0
	for ; i < len(token) && token[i] != 'e' && token[i] != 'E'; i++ {
		c := token[i]
		switch {
		case c == '.':
			fraction = true
			continue
		case c != '0':
			for range min(zeros, maxDigits-min(d.n, maxDigits)) {
				d.digits[d.n] = '0'
				d.n++
				zeros--
			}
			if d.n < maxDigits && zeros == 0 {
				d.digits[d.n] = c
				d.n++
			} else {
				d.n = maxDigits + 1
			}
			zeros = 0
		case d.n > 0:
			zeros++
		case fraction:
			d.point--
		}
		if !fraction && d.n > 0 {
			d.point++
		}
	}
	if i < len(token) {
		d.point += exponent(token[i+1:])
	}
	return negative
}

// exponent reads an exponent, and stops to count at maxExponent.
func exponent(text []byte) int64 {
	sign := int64(1)
	switch text[0] {
	case '-':
		sign = -1
		text = text[1:]
	case '+':
		text = text[1:]
	}
	e := int64(0)
	for _, c := range text {
		e = min(e*10+int64(c-'0'), maxExponent)
	}
	return sign * e
}

// isShortest reports whether d is, as a number, what ECMAScript writes for the
// double that is nearest to d.
func (d *decimal) isShortest() bool {
	switch {
	case d.n > maxDigits, d.point < minPoint, d.point > maxPoint:
		return false
	case d.n <= exactDigits && -safePoint < d.point && d.point < safePoint:
		return true
	}
	var room [32]byte
	text := append(append(room[:0], "0."...), d.digits[:d.n]...)
	text = strconv.AppendInt(append(text, 'e'), d.point, 10)
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || f == 0 {
		return false // rounds to infinity or to zero
	}
	// strconv's shortest form has, like ECMAScript's, the fewest digits that
	// give back f, and of those the nearest to f.
	var shortest decimal
	shortest.read(strconv.AppendFloat(room[:0], f, 'e', -1, 64))
	return shortest == *d
}

// append appends the form that Number::toString gives (ECMA-262, 6.1.6.1.20;
// k is d.n there, n is d.point).
func (d *decimal) append(dst []byte) []byte {
	const (
		mostInteger  = 21 // digits before the point
		leastDecimal = -6 // exclusive
	)
	digits := d.digits[:d.n]
	switch {
	case int64(d.n) <= d.point && d.point <= mostInteger:
		dst = append(dst, digits...)
		return appendZeros(dst, d.point-int64(d.n))
	case 0 < d.point && d.point <= mostInteger:
		dst = append(append(dst, digits[:d.point]...), '.')
		return append(dst, digits[d.point:]...)
	case leastDecimal < d.point && d.point <= 0:
		dst = appendZeros(append(dst, "0."...), -d.point)
		return append(dst, digits...)
	}
	dst = append(dst, digits[0])
	if d.n > 1 {
		dst = append(append(dst, '.'), digits[1:]...)
	}
	dst = append(dst, 'e')
	if d.point > 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, d.point-1, 10)
}

func appendZeros(dst []byte, n int64) []byte {
	for range n {
		dst = append(dst, '0')
	}
	return dst
}
