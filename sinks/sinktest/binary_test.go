package sinktest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// modelProgram begins the name under which the test binary is the model as a program;
// what follows is its mistake.
const modelProgram = "peanuts-sink-model"

// playModel is what such a program does: go-plugin's handshake and gRPC, by hand, so that
// each part can be left out.
func playModel(mistake string) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT)
	m := newModel()
	m.log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	switch {
	case len(os.Args) > 1 && os.Args[1] == "describe":
		modelDescribes(m, mistake)
		os.Exit(0)
	case os.Getenv(sinks.MagicCookieKey) != sinks.MagicCookieValue && mistake != "by-hand":
		fmt.Fprintln(os.Stderr, "this is a plugin of Peanuts Relay")
		os.Exit(2)
	}
	m.fail(mistake)
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), fmt.Sprintf("model-%d", os.Getpid()))
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	server := m.server()
	end := func(status int) {
		server.Stop() // removes the socket
		os.Exit(status)
	}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "plugin.GRPCController", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Shutdown",
		Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			status := 0
			if mistake == "launch" {
				status = 3
			}
			time.AfterFunc(10*time.Millisecond, func() { end(status) })
			return &emptypb.Empty{}, nil
		},
	}}}, nil)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		if mistake != "stdin" {
			end(0)
		}
	}()
	fmt.Printf("1|1|unix|%s|grpc\n", path)
	if err := server.Serve(l); err != nil {
		panic(err)
	}
	select {} // end is about to
}

func modelDescribes(m *model, mistake string) {
	capabilities, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m.about.GetCapabilities())
	if err != nil {
		panic(err)
	}
	if mistake == "describe-command" {
		m.about.Version = "0.9"
	}
	fmt.Printf(`{"name":%q,"version":%q,"summary":%q,"homepage":%q,"settings_schema":%s,"capabilities":%s}`,
		m.about.GetName(), m.about.GetVersion(), m.about.GetSummary(), m.about.GetHomepage(), m.about.GetSettingsSchema(), capabilities)
}

// fail makes the mistakes that take a process.
func (m *model) fail(mistake string) {
	switch mistake {
	case "signals":
		signal.Reset(syscall.SIGTERM)
	case "descriptors":
		m.delivers(func(_ *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
			if _, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0); err != nil { // nor does a finalizer close it
				panic(err)
			}
			return post()
		})
	case "stdout":
		m.health = func(next func() error) error { fmt.Println("I am well"); return next() }
	case "panic":
		m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
			if strings.Contains(string(d.GetEntry().GetDataJson()), `"panic"`) {
				panic("the whole process ends")
			}
			return post()
		})
	case "secrets":
		m.delivers(func(_ *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
			fmt.Fprintln(os.Stderr, "sent with", modelToken)
			return post()
		})
	}
}

// program is the test binary under the name of a model with a mistake.
func program(t *testing.T, mistake string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, modelProgram)
	if mistake != "" {
		name += "-" + mistake
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if mistake == "file" {
		if err := os.Chmod(name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func TestAProgramThatDoesEverythingRightPasses(t *testing.T) {
	RunBinary(t, program(t, ""), modelOptions())
}

// TestEachCheckOfAProgramFindsItsMistake is TestEachCheckFindsItsMistake for what only a
// process can do wrong, or does otherwise.
func TestEachCheckOfAProgramFindsItsMistake(t *testing.T) {
	t.Parallel()
	mistakes := []string{"panic", "secrets"}
	for _, info := range Checks() {
		if info.Binary {
			mistakes = append(mistakes, info.Name)
		}
	}
	for _, mistake := range mistakes {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			o := modelOptions()
			if mistake != "descriptors" {
				o.Skip = map[string]string{"descriptors": "a thousand deliveries are tried elsewhere"}
			}
			var failed []Result
			err := CheckBinary(t.Context(), program(t, mistake), o, func(r Result) {
				if r.Status == Failed {
					failed = append(failed, r)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := names(failed); !slices.Equal(got, []string{mistake}) {
				t.Errorf("failed are %q, want %s alone", got, mistake)
				complain(t, failed)
			}
		})
	}
}

func TestAProgramThatDoesNotStartFailsWithItsLastWords(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "peanuts-sink-broken")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho no luck today >&2\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	said := ""
	var failed []Result
	err := CheckBinary(t.Context(), path, modelOptions(), func(r Result) {
		if r.Check == "describe" {
			said = strings.Join(r.Details, "\n")
		}
		if r.Status == Failed {
			failed = append(failed, r)
		}
	})
	if got := names(failed); !slices.Equal(got, []string{"describe", "describe-command", "launch"}) {
		t.Errorf("failed are %q, although one start was to say it", got)
	}
	if err != nil || !strings.Contains(said, "exit status 7") || !strings.Contains(said, "no luck today") {
		t.Errorf("%q, %v", said, err)
	}
	if err := CheckBinary(t.Context(), filepath.Join(t.TempDir(), "none"), Options{}, func(Result) {}); err == nil {
		t.Error("a program that does not exist was checked")
	}
}
