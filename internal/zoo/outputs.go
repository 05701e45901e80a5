package zoo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// outputs are the animals that write too much, or what they must not. All but the first
// two work otherwise:
//
//	flood-stdout      endless bytes without a line's end instead of a handshake
//	flood-lines       endless lines instead of a handshake
//	flood-stderr-N    N MiB of log lines on standard error, 1024 without a number, then "the flood is over"
//	flood-long-N      the same in lines of 10 MiB
//	flood-message-N   the same in lines of {"@message":5}
//	flood-empty-N     the same in empty lines
//	flood-panic-N     the same in lines that a stack begins with
//	flood-after-N     N MiB of lines on standard output after the handshake
//	flood-stdio-N     N MiB of lines over go-plugin's stdio service
//	leak              writes its token, when it has one, into its log, in every form that
//	                  a log has, and dies with it in its panic at the first Deliver
func outputs() map[string]func(animal) {
	mib := func(line string) []byte {
		return bytes.Repeat([]byte(line), max(1, (1<<20)/len(line)))
	}
	log := mib(`{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"I have something to say","again":true}` + "\n")
	flood := func(to *os.File, piece []byte) func(animal) {
		return func(a animal) {
			go func() {
				pour(to, piece, a.number(1024)<<20)
				fmt.Fprintln(os.NewFile(2, "stderr"), `{"level":"INFO","msg":"the flood is over"}`)
			}()
			a.raw().serve()
		}
	}
	return map[string]func(animal){
		"flood-stdout":  func(animal) { pour(os.Stdout, bytes.Repeat([]byte("x"), 1<<20), 1<<62) },
		"flood-lines":   func(animal) { pour(os.Stdout, mib("good morning\n"), 1<<62) },
		"flood-stderr":  flood(os.Stderr, log),
		"flood-long":    flood(os.Stderr, append(bytes.Repeat([]byte("y"), 10<<20), '\n')),
		"flood-message": flood(os.Stderr, mib(`{"@message":5}`+"\n")),
		"flood-empty":   flood(os.Stderr, mib("\n")),
		"flood-panic":   flood(os.Stderr, mib("panic: at the disco\n")),
		"flood-after": func(a animal) {
			stdout := os.Stdout // go-plugin replaces it
			a.pourAtFirstCall(func() *os.File { return stdout }, mib("good morning\n"))
		},
		"flood-stdio": func(a animal) {
			a.pourAtFirstCall(func() *os.File { return os.Stdout }, mib("good morning\n"))
		},
		"leak": func(a animal) {
			r := a.raw()
			stderr := os.Stderr
			r.before = func(call string) error {
				for _, token := range r.tokens() {
					tell(stderr, token)
					if call == "deliver" {
						go panic("the token is " + token)
						forever()
					}
				}
				return nil
			}
			r.serve()
		},
	}
}

func (a animal) pourAtFirstCall(to func() *os.File, piece []byte) {
	r := a.raw()
	r.before = func(string) error {
		r.once.Do(func() {
			go func() {
				pour(to(), piece, a.number(1024)<<20)
				fmt.Fprintln(os.Stderr, "the flood is over")
			}()
		})
		return nil
	}
	r.serve()
}

// pour writes n bytes, or as many as somebody reads.
func pour(to io.Writer, piece []byte, n int) {
	for n > 0 {
		if _, err := to.Write(piece[:min(len(piece), n)]); err != nil {
			return
		}
		n -= len(piece)
	}
}

// tell writes a token in every form that a log has.
func tell(to io.Writer, token string) {
	quoted, err := json.Marshal(token)
	must(err)
	fmt.Fprintf(to, "plain %s\n", token)
	fmt.Fprintf(to, `{"level":"WARN","msg":"message %s"}`+"\n", strings.Trim(string(quoted), `"`))
	fmt.Fprintf(to, `{"level":"INFO","msg":"attribute","token":%s}`+"\n", quoted)
	fmt.Fprintf(to, `{"level":"ERROR","msg":"nested","a":{"b":["c",%s],%s:1}}`+"\n", quoted, quoted)
	fmt.Fprintf(to, `{"level":"ERROR","msg":"key",%s:true}`+"\n", quoted)
	fmt.Fprintf(to, "%s%s%s\n", strings.Repeat("z", 64<<10-len(token)/2), token, strings.Repeat("z", 100)) // across the cut
	fmt.Println("on the standard output", token)
}

// tokens are those of the settings that the animal has got so far.
func (r *raw) tokens() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, s := range r.held {
		if s.Token != "" {
			out = append(out, s.Token)
		}
	}
	return out
}
