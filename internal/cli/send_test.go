package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestWhatAFileHolds(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    inputKind
	}{
		"nothing":                              {"", inputEmpty},
		"white space":                          {" \n\t\n", inputEmpty},
		"one line":                             {`{"a":1}`, inputDocument},
		"one line with its end":                {`{"a":1}` + "\n\n", inputDocument},
		"a pretty-printed document":            {"{\n  \"a\": {\n\"b\": \"}\\\"{\"}\n}\n", inputDocument},
		"a document after blank lines":         {"\n\n{\n\"a\":1}\n", inputDocument},
		"two lines":                            {"{\"a\":1}\n{\"b\":2}\n", inputLines},
		"two lines with blank ones":            {"\n{\"a\":1}\n\n\n{\"b\":2}", inputLines},
		"a bad first line":                     {"{bad\n{\"b\":2}\n", inputLines},
		"a bad first line that closes":         {"{bad}\n{\"b\":2}\n", inputLines},
		"a first line without JSON":            {"hello\n{\"b\":2}\n", inputLines},
		"a first line with an open string":     {"{\"a\n{\"b\":2}\n{\"c\":3}\n", inputLines},
		"a first line with a text that closes": {"{\"a\":\"x}\n{\"b\":2}\n", inputLines},
		"a bad document":                       {"{\n\"a\": tru\n}\n", inputDocument},
		"an unfinished document":               {"{\n\"a\": 1,\n", inputDocument},
		"an object that spans a line object":   {"{\"x\":[\n{\"a\":1}\n]}\n", inputDocument},
		"several documents":                    {"{\n\"a\":1\n}\n{\n\"b\":2\n}\n", inputDocuments},
		"an array":                             {"[\n{\"a\":1}\n]\n", inputArray},
		"an array of one line":                 {`[{"a":1}]`, inputArray},
		"a text":                               {`"a"`, inputDocument},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.content), iotest.OneByteReader(strings.NewReader(c.content))} {
			in, err := detect(r, false)
			if err != nil || in.kind != c.want {
				t.Errorf("%s: kind %d, %v, want %d", name, in.kind, err, c.want)
			}
			if in.kind == inputLines {
				if rest, _ := io.ReadAll(in.lines); string(rest) != c.content {
					t.Errorf("%s: the lines are %q, want all of %q", name, rest, c.content)
				}
			}
		}
	}
}

func TestDetectionLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"{", "}", "[", "]", `"`, `\`, "\n", " ", `{"a":1}`, "x", ",", ":", "1"})).Draw(t, "content")
		content := strings.Join(parts, "")
		in, err := detect(strings.NewReader(content), false)
		if err != nil {
			t.Fatal(err)
		}
		switch in.kind {
		case inputLines:
			if rest, _ := io.ReadAll(in.lines); string(rest) != content {
				t.Fatalf("lines %q of %q", rest, content)
			}
		case inputDocument:
			if !strings.Contains(content, string(bytes.TrimSpace(in.document))) || strings.TrimSpace(content) != string(bytes.TrimSpace(in.document)) {
				t.Fatalf("document %q of %q", in.document, content)
			}
		case inputEmpty:
			if strings.TrimSpace(content) != "" {
				t.Fatalf("%q is called empty", content)
			}
		}
	})
}

func TestAnEndlessFirstLineIsRefused(t *testing.T) {
	endless := io.MultiReader(strings.NewReader("{"), io.LimitReader(zeros{}, 3*maxInput))
	if _, err := detect(endless, false); err == nil {
		t.Error("no error")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

// sendTo runs send against a stub and returns what the stub was handed.
func sendTo(t *testing.T, stub *eventsStub, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	socket := filepath.Join(shortTempDir(t), "ev.sock")
	stop, err := stub.listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	return runMain(t, Streams{In: strings.NewReader(stdin)}, append([]string{"send", "--socket", socket}, args...)...)
}

func TestValuesOfAnEntryAreTyped(t *testing.T) {
	stub := &eventsStub{}
	code, _, stderr := sendTo(t, stub, "", "--helper", "expenses", "--event", "updated", "--entry", "e1",
		"--set", "amount=42.50", "--set", "big=12345678901234567890", "--set", "paid=true", "--set", "none=null", "--set", `tags=["a",1]`,
		"--set", `more={"k": 1}`, "--set", "category=Food & <Drink>", "--set", "empty=", "--set", "eq=a=b", "--set", "bad=042", "--set", `quoted="x"`,
		"--set-string", "key=007", "--set-string", "no=1", "--set", "nan=NaN", "--set", "päth=1e2",
		"--user", "u1", "--id", "my-id", "--timestamp", "2025-01-15T14:32:00Z", "--idempotency-key", "k-1")
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	want := `{"event":"entry.updated","helper":"expenses","entry":{"id":"e1","data":{` +
		`"amount":42.50,"big":12345678901234567890,"paid":true,"none":null,"tags":["a",1],"more":{"k": 1},` +
		`"category":"Food & <Drink>","empty":"","eq":"a=b","bad":"042","quoted":"x","key":"007","no":"1","nan":"NaN","päth":1e2}},` +
		`"user":{"id":"u1"},"timestamp":"2025-01-15T14:32:00Z","id":"my-id"}`
	if got := stub.bodies(); !slices.Equal(got, []string{want}) {
		t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
	if r := stub.requests[0]; r.idempotencyKey != "k-1" || r.contentType != "application/json" {
		t.Errorf("sent with %+v", r)
	}
}

func TestAStreamKeepsOrderAndNumbersWhateverItsSize(t *testing.T) {
	// More lines than may be under way at once, every hundredth of them blank.
	const n = 3 * window
	var in strings.Builder
	var want []string
	for i := 1; i <= n; i++ {
		switch {
		case i%100 == 0:
			in.WriteString("\n")
		case i%1000 == 1:
			in.WriteString(`{"entry":{"id":"bad"}}` + "\n")
			want = append(want, `{"entry":{"id":"bad"}}`)
		default:
			line := fmt.Sprintf(`{"entry":{"id":"e%d"}}`, i)
			in.WriteString(line + "\r\n")
			want = append(want, line)
		}
	}
	stub := &eventsStub{}
	code, stdout, stderr := sendTo(t, stub, in.String(), "-f", "-")
	if code != ExitFailure {
		t.Errorf("exit status %d, want 1 for the rejected lines", code)
	}
	if got := stub.bodies(); !slices.Equal(got, want) {
		t.Errorf("%d lines arrived, want %d in order", len(got), len(want))
	}
	rejected := (n + 999) / 1000
	if want := fmt.Sprintf("%s accepted, %d rejected", grouped(int64(len(want)-rejected)), rejected); !strings.HasPrefix(stdout, want) {
		t.Errorf("summary %q, want %q", stdout, want)
	}
	for i := 1; i <= n; i += 1000 {
		if !strings.Contains(stderr, fmt.Sprintf("standard input:%d: rejected: no helper", i)) {
			t.Errorf("line %d is not named", i)
		}
	}
}

func TestAStreamShowsHowFarItIs(t *testing.T) {
	stub := &eventsStub{}
	socket := filepath.Join(shortTempDir(t), "ev.sock")
	stop, err := stub.listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	_, _, stderr := runMain(t, Streams{In: strings.NewReader("{\"entry\":{\"id\":\"a\"}}\n{\"entry\":{\"id\":\"b\"}}\n"), ErrTerm: Terminal{Width: 60}},
		"send", "--socket", socket, "-f", "-")
	if !strings.HasPrefix(stderr, "\r\x1b[K1 accepted  0 rejected  ") || !strings.HasSuffix(stderr, "\r\x1b[K") {
		t.Errorf("progress %q", stderr)
	}
}

func TestTheBarFitsTheTerminal(t *testing.T) {
	p := &progress{total: 100}
	p.read.Store(50)
	if got := p.bar(100); got != "████████████░░░░░░░░░░░░░  50%" {
		t.Errorf("bar %q", got)
	}
	if got := p.bar(15); got != "█████░░░░░  50%" {
		t.Errorf("bar %q", got)
	}
	if got := p.bar(5); got != "" {
		t.Errorf("bar %q on a terminal without room", got)
	}
	p.read.Store(1000) // the file grew
	if got := p.bar(15); got != "██████████ 100%" {
		t.Errorf("bar %q", got)
	}
}

func TestALineThatIsTooLongEndsTheStreamWhereItIs(t *testing.T) {
	stub := &eventsStub{}
	long := `{"a":"` + strings.Repeat("x", maxInput) + `"}`
	code, stdout, stderr := sendTo(t, stub, "{\"entry\":{\"id\":\"a\"}}\n"+long+"\n", "-f", "-", "--ndjson")
	if code != ExitFailure || !strings.HasPrefix(stdout, "1 accepted") {
		t.Errorf("exit status %d, %s", code, stdout)
	}
	if !strings.Contains(stderr, "line 2: longer than 16.0 MiB") || !strings.Contains(stderr, "--skip 1") {
		t.Errorf("stderr %s", stderr)
	}
}

func FuzzDetect(f *testing.F) {
	for _, seed := range []string{"", "{}", "{\"a\":1}\n{\"b\":2}\n", "{\n}\n", "[1]\n", "{\"a\n{\"b\":2}\n", "\"\\\"\n}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		in, err := detect(bytes.NewReader(content), false)
		if err != nil {
			t.Fatal(err)
		}
		if in.kind == inputLines {
			if rest, _ := io.ReadAll(in.lines); !bytes.Equal(rest, content) {
				t.Errorf("lines %q of %q", rest, content)
			}
		}
		if in.kind == inputDocument && !bytes.Equal(bytes.TrimSpace(in.document), bytes.TrimSpace(content)) {
			t.Errorf("document %q of %q", in.document, content)
		}
	})
}

// FuzzAnswer gives `send` any bytes as the daemon's answer: what is taken says that the
// event was accepted or why not, and the text that is shown is what came.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"id":"evt_1"}`, `{"id":"evt_1","duplicate":true,"deliveries":[{"id":"del_1","webhook":"a.b"}],"skipped":[{"webhook":"a.c","reason":"disabled"}]}`,
		`{"error":{"code":"bad_field","message":"no","field":"entry.id","offset":7}}`, `{"error":null}`, `{"error":{}}`, `[]`, `{"id":5}`, `{"id":"a"}{"id":"b"}`, `{"ID":"x"}`, "null", "<html>"} {
		f.Add([]byte(seed), 202)
	}
	f.Fuzz(func(t *testing.T, raw []byte, status int) {
		ans, err := parseAnswer(raw, status, "")
		if err != nil {
			if ans != nil || len(err.Error()) > 1000 {
				t.Errorf("%q: %v with %.2000v", raw, ans, err)
			}
			return
		}
		if (ans.ID == "" && ans.Error == nil) || !json.Valid(raw) || !bytes.Equal(ans.raw, bytes.TrimSpace(raw)) {
			t.Errorf("%q is taken as %+v", raw, ans)
		}
	})
}
