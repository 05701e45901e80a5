package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// spoil damages the kept copy of the file that contains text, until undo is called.
func (s *site) spoil(text string) (undo func()) {
	s.t.Helper()
	kept, err := filepath.Glob(s.path("history/*/file-*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range kept {
		data, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		if strings.Contains(string(data), text) {
			s.put(path, []byte("damaged"))
			return func() { s.put(path, data) }
		}
	}
	s.t.Fatalf("nothing kept contains %q", text)
	return nil
}

func (s *site) put(path string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnOlderConfigurationThatRunsAgainHasItsOwnNumber(t *testing.T) {
	s := newSite(t, one)
	two := strings.Replace(one, "8081", "8082", 1)
	s.write("config.yaml", two)
	s.open()
	undo := s.spoil("8082")
	s.write("config.yaml", "helpers: [\n")
	s.open()
	if c := s.Status(); c.State != rest.ConfigLastKnownGood || c.Generation != 1 {
		t.Errorf("the newest copy is damaged: %+v", c)
	}
	if files, err := s.Former(1); err != nil || files.Files[0].Content != one {
		t.Errorf("%+v, %v", files, err)
	}
	undo()
	s.write("config.yaml", two)
	s.open()
	if c := s.Status(); c.State != rest.ConfigCurrent || c.Generation != 3 {
		t.Errorf("put right: %+v", c)
	}
	if last, files, err := s.history.Last(); err != nil || last.Generation != 3 || string(files[0].Data) != two {
		t.Errorf("what a start with broken files would find: %+v, %v", last, err)
	}
}

func TestADamagedCopyOfWhatRunsIsMadeAnew(t *testing.T) {
	s := newSite(t, one)
	s.spoil("8081")
	s.open()
	if last, files, err := s.history.Last(); err != nil || last.Generation != s.Generation() || string(files[0].Data) != one {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestAStopDuringAReloadSaysNothingAgainstTheFiles(t *testing.T) {
	for name, refuse := range map[string]error{"the end of Run": nil, "a store that has stopped": ErrStopped} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, one)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); s.Run(ctx) }()
			s.reload()
			s.mu.Lock()
			s.refuse, s.gate = refuse, make(chan struct{})
			gate := s.gate
			s.mu.Unlock()
			s.write("config.yaml", strings.Replace(one, "8081", "8082", 1))
			answer := make(chan error, 1)
			go func() {
				_, err := s.Reload(t.Context(), Cause{Trigger: rest.TriggerReload})
				answer <- err
			}()
			s.until("preparation", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.prepared == 1 })
			if refuse == nil {
				cancel()
			} else {
				gate <- struct{}{}
			}
			if err := <-answer; !errors.Is(err, ErrStopped) {
				t.Errorf("answered: %v", err)
			}
			cancel()
			<-ended
			for _, e := range s.Entries().Entries {
				if e.Result == rest.ReloadRejected {
					t.Errorf("recorded: %+v", e)
				}
			}
			if log := s.log.String(); strings.Contains(log, "rejected") {
				t.Error(log)
			}
		})
	}
}

func TestTheNameOfAFileAddsNoLineToWhatIsTold(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.write("conf.d/50\nMAINPID=1\n\x1b[31m.yaml", "nonsense: 1\n")
	if got := s.reload(); got.Result != rest.ReloadRejected {
		t.Fatalf("%+v", got)
	}
	if text := s.Degraded(); !strings.Contains(text, "MAINPID") || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("%q", text)
	}
}
