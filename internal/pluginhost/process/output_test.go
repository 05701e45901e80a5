package process_test

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// flood is how many MiB are poured in the tests: with ZOO_FLOOD=1024 what the zoo was
// built for, otherwise enough to be seen.
func flood() string {
	if n := os.Getenv("ZOO_FLOOD"); n != "" {
		return n
	}
	return "48"
}

// TestAFloodCostsTheHostLittle pours, and meanwhile calls the plugin and weighs the host.
func TestAFloodCostsTheHostLittle(t *testing.T) {
	for _, kind := range []string{"flood-stderr", "flood-long", "flood-message", "flood-empty", "flood-panic", "flood-after", "flood-stdio"} {
		t.Run(kind, func(t *testing.T) {
			k := keep(t)
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			p := k.start(kind + "-" + flood())
			peak := uint64(0)
			for n := 0; ; n++ {
				if _, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{}); err != nil {
					t.Fatalf("call %d during the flood: %v", n, err)
				}
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapInuse)
				if over(k, p) {
					break
				}
			}
			p.Stop(t.Context())
			grown, logged := (int64(peak)-int64(before.HeapInuse))>>10, k.log.size()>>10
			t.Logf("%s MiB were poured: the heap has grown by %d KiB, %d KiB were logged, %d lines dropped", flood(), grown, logged, p.Exit().Dropped)
			if grown > 32<<10 || logged > 16<<10 {
				t.Error("that is too much")
			}
			if kind == "flood-long" && !k.log.has("yyy [cut]")() {
				t.Error("no long line was cut")
			}
			if kind != "flood-empty" && kind != "flood-long" && (p.Exit().Dropped == 0 || !k.log.has("the sink plugin writes too much; lines were dropped")()) {
				t.Errorf("%d lines were dropped, and the log does not say so", p.Exit().Dropped)
			}
		})
	}
}

// over reports whether the whole flood was read: the last line may itself be dropped.
func over(k *keeper, p *process.Process) bool {
	return k.log.has("the flood is over")() || process.Read(p) >= process.MiB(flood())
}

func TestALineThatPanicsOthersIsOneOfTheLog(t *testing.T) {
	k := keep(t)
	p := k.start("flood-message-1")
	eventually(t, "the line", k.log.has(`"msg":"5"`))
	if _, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{}); err != nil {
		t.Error(err)
	}
}

func TestNoSecretGetsIntoTheLog(t *testing.T) {
	const token = `s3cr"et\ttoken-ünïcode` // has to be escaped in JSON
	k := keep(t)
	p := k.start("leak", func(o *process.Options) {
		o.Mask = func(s string) string { return strings.ReplaceAll(s, token, "********") }
	})
	settings, err := json.Marshal(map[string]string{"token": token})
	if err != nil {
		t.Fatal(err)
	}
	configure(t, p, string(settings))
	if _, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{}); err != nil {
		t.Fatal(err)
	}
	// SDK's own plugin tells it too, in the forms that an answer has.
	if _, err := deliver(t.Context(), p, `{}`); status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	e := p.Exit()
	if !strings.HasPrefix(e.Stack, "panic: the token is ********") {
		t.Errorf("its stack begins with %.80q", e.Stack)
	}
	all := k.log.String() + e.Stack + strings.Join(e.Last, "\n") + e.String()
	for _, piece := range []string{token, "s3cr", "token-ü", `et\\ttoken`} {
		if strings.Contains(all, piece) {
			t.Errorf("%q is in what was kept:\n%s", piece, all)
		}
	}
	for _, form := range []string{`plain ********`, `"msg":"message ********"`, `"token":"********"`, `\"c\",\"********\"`, `"********":true`, "zzz [cut]", "on the standard output ********"} {
		if !strings.Contains(all, form) {
			t.Errorf("%q is not in the log: this test shows nothing\n%.5000s", form, all)
		}
	}
}

func TestWhatGoesThroughGoPluginsStdioIsLoggedToo(t *testing.T) {
	k := keep(t)
	p := k.start("flood-stdio-1")
	if _, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a line of standard output", k.log.has(`"level":"DEBUG","msg":"good morning"`))
}
