package zoo

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Settings are those of every animal, as JSON.
type Settings struct {
	Record  string       `json:"record,omitempty" description:"file that every delivery is appended to as it arrives; absolute"`
	DelayMS int          `json:"delay_ms,omitempty" description:"how long each call of Deliver takes, in milliseconds" minimum:"0"`
	Token   sinks.Secret `json:"token,omitzero" description:"a secret, for those that tell it"`
}

// Record is one delivery as it arrived, before anything was done with it.
type Record struct {
	PID      int    `json:"pid"`  // of the plugin
	Call     uint64 `json:"call"` // counts the calls of Deliver of this process, from 1
	ID       string `json:"id"`
	Webhook  string `json:"webhook"`
	Event    string `json:"event"`
	Entry    string `json:"entry"`
	Attempt  int    `json:"attempt"`
	Sequence uint64 `json:"sequence"`
	State    string `json:"state"`
	Do       string `json:"do"`      // what the entry's data asks for; "" = deliver
	Payload  string `json:"payload"` // its SHA-256, hex
}

func hash(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

// Records reads what the plugins wrote to the file of [Settings].Record so far. No file is no
// records. A line that is being written is left out.
func Records(t testing.TB, path string) []Record {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []Record
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return out
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("record %q: %v", line, err)
		}
		out = append(out, r)
	}
}

// write appends the records of one call in one piece.
func write(path string, rs []Record) {
	if path == "" {
		return
	}
	var b []byte
	for _, r := range rs {
		line, err := json.Marshal(r)
		must(err)
		b = append(append(b, line...), '\n')
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(err)
	_, err = f.Write(b)
	must(errors.Join(err, f.Close()))
}
