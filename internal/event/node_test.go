package event

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// nodeProgram reads lines of "<sender's data> <payload>…", each in base64, and
// answers each with a line: for the data what JSON.stringify makes of it, in
// base64, then for every payload "=" if it is a fixed point, else "!".
const nodeProgram = `
const chunks = [];
process.stdin.on('data', (c) => chunks.push(c));
process.stdin.on('end', () => {
  const out = [];
  const roundTrip = (s) => JSON.stringify(JSON.parse(s));
  for (const line of Buffer.concat(chunks).toString('latin1').split('\n')) {
    if (line === '') continue;
    const [data, ...payloads] = line.split(' ').map((s) => Buffer.from(s, 'base64').toString('utf8'));
    out.push([Buffer.from(roundTrip(data), 'utf8').toString('base64'),
      ...payloads.map((p) => roundTrip(p) === p ? '=' : '!')].join(' '));
  }
  process.stdout.write(out.join('\n') + '\n');
});
`

// runNode gives input to nodeProgram and returns its answers.
func runNode(t *testing.T, input []byte, lines int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, testhost.Program(t, "node"), "-e", nodeProgram)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, &stderr)
	}
	answers := make([]string, 0, lines)
	scanner := bufio.NewScanner(bytes.NewReader(out))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		answers = append(answers, scanner.Text())
	}
	if len(answers) != lines {
		t.Fatalf("node answered %d lines for %d", len(answers), lines)
	}
	return answers
}

// sent is an event that was made for node to judge.
type sent struct {
	data  string // as the sender spelled it
	lossy bool   // it has a number that JavaScript changes
	in    *Input
}

func TestPayloadsSurviveNodeOrAreFlagged(t *testing.T) {
	testhost.Program(t, "node")
	const events = 5000
	g := &generator{Rand: testhost.Chance(t)}
	h := &Helper{ID: "h", Name: "\u2028 <&> \"é😀\x01", Fields: []Field{{"12", Number}, {"id", String}, {"a\\", List}}}
	var all []sent
	var input bytes.Buffer
	for range events {
		s := g.event(t)
		peanuts, _ := Encode(nil, s.in, h, FormatPeanuts, "")
		event, _ := Encode(nil, s.in, h, FormatEvent, "")
		all = append(all, s)
		for i, b := range [][]byte{[]byte(s.data), peanuts, event} {
			if i > 0 {
				input.WriteByte(' ')
			}
			input.WriteString(base64.StdEncoding.EncodeToString(b))
		}
		input.WriteByte('\n')
	}

	flagged := 0
	for i, answer := range runNode(t, input.Bytes(), events) {
		if all[i].in.Unstable {
			flagged++
		}
		if all[i].judge(t, answer); t.Failed() {
			break
		}
	}
	t.Logf("%d payloads, %d with a lossy number", events, flagged)
	if flagged < events/100 || flagged > events*9/10 {
		t.Errorf("%d of %d payloads are flagged: the generator is lopsided", flagged, events)
	}
}

// judge compares node's answer with what we said of the event.
func (s *sent) judge(t *testing.T, answer string) {
	t.Helper()
	if s.in.Unstable != s.lossy {
		t.Errorf("unstable is %v, but a number that JavaScript changes was sent: %v\n%s", s.in.Unstable, s.lossy, s.data)
	}
	want := "="
	if s.in.Unstable {
		want = "!"
	}
	parts := strings.Split(answer, " ")
	if len(parts) != 3 || parts[1] != want || parts[2] != want {
		t.Errorf("flagged %v, but node says %q of\n%s\nfrom %s", s.in.Unstable, parts[1:], s.in.Data, s.data)
	}
	// What JavaScript reads in the sender's text is what it reads in ours.
	said, err := base64.StdEncoding.DecodeString(parts[0])
	if err != nil {
		t.Error(err)
	}
	if !s.in.Unstable && string(said) != string(s.in.Data) {
		t.Errorf("node makes\n%s\nof %s, we\n%s", said, s.data, s.in.Data)
	}
}

// generator makes JSON objects of every shape and notation.
type generator struct {
	*rand.Rand
	lossy bool // a number was made that JavaScript changes
	left  int  // values that may still be made
}

// event makes an event and parses it.
func (g *generator) event(t *testing.T) sent {
	t.Helper()
	g.lossy = false
	data := g.data()
	body := fmt.Sprintf("{%s\"event\":\"entry.created\",\"helper\":\"h\",\"entry\":{\"id\":%s,\"data\":%s}}",
		g.space(), g.pick(`"e"`, `"\u2028\u0000\ud83d\ude00"`, `"\""`), data)
	in, err := Parse([]byte(body), testNow)
	if err != nil {
		t.Fatalf("Parse(%s): %v", body, err)
	}
	return sent{data, g.lossy, in}
}

func (g *generator) pick(words ...string) string { return words[g.IntN(len(words))] }
func (g *generator) chance(percent int) bool     { return g.IntN(100) < percent }

// data is the data of an entry. Now and then it is as deep as it can be: the
// event and the entry take two of MaxDepth levels.
func (g *generator) data() string {
	g.left = 40
	if !g.chance(5) {
		return g.object(1 + g.IntN(5))
	}
	text := g.pick("[]", "{}")
	for level := MaxDepth - 3; level > 0; level-- {
		if level > 1 && g.chance(50) {
			text = "[" + g.number() + "," + text + "]"
		} else {
			text = `{"b":` + g.string() + "," + g.pick(`"a"`, `"7"`, `"__proto__"`) + ":" + text + `,"0":` + g.number() + "}"
		}
	}
	return text
}

func (g *generator) space() string {
	if g.chance(80) {
		return ""
	}
	return g.pick(" ", "\t", "\r\n", "  \n ")
}

func (g *generator) value(depth int) string {
	g.left--
	deep := depth > 0 && g.left > 0
	switch {
	case deep && g.chance(15):
		return g.object(depth)
	case deep && g.chance(20):
		return g.list(depth)
	case g.chance(40):
		return g.number()
	case g.chance(70):
		return g.string()
	}
	return g.pick("true", "false", "null", "{}", "[]", `""`)
}

func (g *generator) list(depth int) string {
	var items []string
	for range g.IntN(4) {
		items = append(items, g.space()+g.value(depth-1)+g.space())
	}
	return "[" + strings.Join(items, ",") + "]"
}

func (g *generator) object(depth int) string {
	var items []string
	used := map[string]bool{}
	n := 1 + g.IntN(6)
	if g.chance(2) {
		n = 40
	}
	for range n {
		key := g.key()
		// The canonical spelling tells equal keys apart, whatever the escapes.
		same := string(appendCanonical(nil, []byte(key[1:len(key)-1])))
		if !used[same] {
			used[same] = true
			items = append(items, g.space()+key+g.space()+":"+g.space()+g.value(depth-1)+g.space())
		}
	}
	return "{" + strings.Join(items, ",") + "}"
}

func (g *generator) key() string {
	switch g.IntN(8) {
	case 0, 1:
		return strconv.Quote(strconv.FormatUint(uint64(g.IntN(30)), 10))
	case 2:
		return strconv.Quote(strconv.FormatUint(g.Uint64()>>g.IntN(64), 10))
	case 3:
		return g.pick(`"4294967294"`, `"4294967295"`, `"4294967296"`, `"2147483648"`, `"00"`, `"01"`, `"-0"`, `"-1"`, `"1.5"`, `"1e3"`,
			`"\u0031\u0032"`, `"9007199254740991"`, `"9007199254740992"`, `"NaN"`, `"Infinity"`, `" 1"`, `"１"`)
	case 4:
		return g.pick(`"__proto__"`, `"\u005f_proto__"`, `"constructor"`, `"toString"`, `"toJSON"`, `"valueOf"`, `"hasOwnProperty"`, `"length"`, `"id"`, `"data"`)
	case 5:
		return g.string()
	}
	return strconv.Quote(string(rune('a' + g.IntN(26))))
}

func (g *generator) string() string {
	n := g.IntN(6)
	if g.chance(2) {
		n = 300
	}
	var b strings.Builder
	b.WriteByte('"')
	for range n {
		b.WriteString(g.character())
	}
	b.WriteByte('"')
	return b.String()
}

// character is one character or a lone surrogate, in one of its spellings.
func (g *generator) character() string {
	switch g.IntN(9) {
	case 0:
		return g.pick(`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`)
	case 1:
		return g.escape(uint16(g.IntN(0x20)))
	case 2:
		return g.escape(uint16(0xD800 + g.IntN(0x800)))
	case 3:
		return g.escape(uint16(0xD800+g.IntN(0x400))) + g.escape(uint16(0xDC00+g.IntN(0x400)))
	case 4:
		return g.pick("\u2028", "\u2029", "\u007f", "\u0080", "<", ">", "&", "'", "/", "\ufeff", "\uffff", "é", "😀", "\U0010ffff", "u", "d")
	case 5:
		return g.escape(uint16(g.UintN(1 << 16)))
	case 6:
		return string(rune(0x10000 + g.IntN(0x100000)))
	}
	return string(rune('#' + g.IntN(50))) // no quote, no backslash
}

func (g *generator) escape(unit uint16) string {
	return fmt.Sprintf(g.pick(`\u%04x`, `\u%04X`), unit)
}

// number is a number in any notation; of one that JavaScript changes it makes a
// note.
func (g *generator) number() string {
	n := g.anyNumber()
	if !survives(n) {
		// Else nearly every larger object would have one.
		if !g.chance(10) {
			return g.pick("0", "-0", "1", "1.0", "1e0")
		}
		g.lossy = true
	}
	return n
}

func (g *generator) anyNumber() string {
	sign := g.pick("", "", "-")
	digits := func(most int) string {
		b := []byte{byte('1' + g.IntN(9))}
		for range g.IntN(most) {
			b = append(b, g.pick("0", "0", "0", "9", "5", "1", "7")...)
		}
		return string(b)
	}
	fraction := func(most int) string { return g.pick("", "0", "00", "00000", "000000") + digits(most) }
	switch g.IntN(10) {
	case 0:
		return sign + g.pick("0", "0.0", "0e7", "0E-3", "0.000e+99", "0e999999999")
	case 1:
		return sign + strconv.Itoa(g.IntN(1000)) + "." + g.pick("0", "00", "5", "50", "25")
	case 2:
		return sign + digits(25) + g.pick("", ".0", ".00", "e0", "E+1", "e-1", "e5", "e-20")
	case 3:
		return sign + g.pick("0", digits(8)) + "." + fraction(12)
	case 4:
		return sign + digits(3) + g.pick("", "."+digits(8)) + g.pick("e", "E", "e+", "e-", "E-", "e00", "e-0") + strconv.Itoa(g.IntN(330))
	case 5:
		return sign + digits(3) + g.pick("e", "e-") + g.pick("400", "999999999", "99999999999999999999")
	case 6, 7:
		// A double's own shortest form, of all magnitudes.
		f := math.Float64frombits(g.Uint64())
		if math.IsNaN(f) || math.IsInf(f, 0) {
			f = 5e-324
		}
		return strconv.FormatFloat(f, g.pick("e", "E", "g")[0], -1, 64)
	case 8:
		return strconv.FormatFloat(g.NormFloat64()*1000, 'f', -1, 64)
	}
	return sign + strconv.FormatInt(1<<53+g.Int64N(64)-32, 10)
}
