package adminclient

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon serves h on a socket until the test ends.
func daemon(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	c := New(socket)
	t.Cleanup(func() {
		c.Close()
		_ = srv.Close()
		<-done
	})
	return c
}

func TestNothingListens(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, socket := range map[string]string{"no such file": filepath.Join(dir, "none.sock"), "stale socket": stale,
		"no socket": file, "below a file": filepath.Join(file, "x.sock")} {
		_, err := New(socket).Status(t.Context())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), socket) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: %v names a URL that does not exist", name, err)
		}
	}
}

func TestPermissionDenied(t *testing.T) {
	if testhost.AsUser(t) {
		return // root may open every socket
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := New(socket).Status(t.Context()); !errors.Is(err, ErrPermission) {
		t.Errorf("got %v", err)
	}
}

// The kernel's answer is given to the client without a kernel that refuses, so
// that root's test run covers the mapping too.
func TestAPermissionErrorIsErrPermission(t *testing.T) {
	c := New("/run/admin.sock")
	err := c.explain(t.Context(), &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", os.ErrPermission)})
	if !errors.Is(err, ErrPermission) {
		t.Errorf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, row := range []struct {
		name, contentType, body string
		want                    Error
	}{
		{"a document", "application/json", `{"error":{"code":"in_flight","message":"wait","field":"id"}}`, Error{Status: 409, Code: "in_flight", Message: "wait", Field: "id"}},
		{"with a charset", "application/json; charset=utf-8", `{"error":{"code":"x","message":"m"}}`, Error{Status: 409, Code: "x", Message: "m"}},
		{"text", "text/plain", "no", Error{Status: 409, Message: "the admin socket answered 409 Conflict without saying why"}},
		{"broken JSON", "application/json", `{"error":`, Error{Status: 409, Message: "the admin socket answered 409 Conflict without saying why"}},
		{"another document", "application/json", `{"ok":false}`, Error{Status: 409, Message: "the admin socket answered 409 Conflict without saying why"}},
		{"nothing", "", "", Error{Status: 409, Message: "the admin socket answered 409 Conflict without saying why"}},
	} {
		c := daemon(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", row.contentType)
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, row.body)
		})
		_, err := c.Retry(t.Context(), "del_x")
		got, ok := errors.AsType[*Error](err)
		if !ok || !reflect.DeepEqual(*got, row.want) {
			t.Errorf("%s: got %+v, want %+v", row.name, err, row.want)
		}
	}
}

func TestARedirectIsNoAnswer(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	_, err := c.Status(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusFound {
		t.Errorf("got %v", err)
	}
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	c := daemon(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	c.limit = 100 << 10
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

func TestAContextEndsACall(t *testing.T) {
	begun := make(chan struct{})
	c := daemon(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	go func() {
		<-begun
		cancel(enough)
	}()
	if _, err := c.Status(ctx); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func TestRequestsSayWhatTheQuerySays(t *testing.T) {
	got := make(chan string, 1)
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.URL.EscapedPath() + "?" + r.URL.Query().Encode() + " " + string(body)
		_, _ = io.WriteString(w, `{}`)
	})
	for _, row := range []struct {
		call func() error
		want string
	}{
		{func() error {
			_, err := c.Deliveries(t.Context(), DeliveryQuery{Webhook: "a.b/c", Status: []string{"failed", "held"}, Since: "2h", Until: "1h", Event: "created", Limit: 5, Cursor: "x&y"})
			return err
		}, "GET /v1/webhooks/a.b%2Fc/deliveries?cursor=x%26y&event=created&limit=5&since=2h&status=failed%2Cheld&until=1h "},
		{func() error { _, err := c.Deliveries(t.Context(), DeliveryQuery{}); return err }, "GET /v1/deliveries? "},
		{func() error { _, err := c.Event(t.Context(), "my id?#/x"); return err }, "GET /v1/events/my%20id%3F%23%2Fx? "},
		{func() error {
			_, err := c.Replay(t.Context(), "a.b", rest.ReplayRequest{Since: "7d", DryRun: true})
			return err
		}, `POST /v1/webhooks/a.b/replay? {"since":"7d","dry_run":true}`},
		{func() error { _, err := c.Test(t.Context(), "a.b", rest.TestRequest{}); return err }, "POST /v1/webhooks/a.b/test? {}"},
		{func() error { _, err := c.Drop(t.Context(), "del_1"); return err }, "DELETE /v1/deliveries/del_1? "},
		{func() error { _, err := c.CancelReplay(t.Context(), "rep_1"); return err }, "DELETE /v1/replays/rep_1? "},
	} {
		if err := row.call(); err != nil {
			t.Error(err)
		}
		if asked := <-got; asked != row.want {
			t.Errorf("asked %q, want %q", asked, row.want)
		}
	}
}

func TestAllDeliveriesStopsWhereItsCallerStops(t *testing.T) {
	pages := 0
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		pages++
		page := rest.DeliveryPage{Deliveries: []rest.Delivery{{ID: "a"}, {ID: "b"}}, NextCursor: "next"}
		if r.URL.Query().Get("cursor") == "next" {
			// An empty page in the middle is no end.
			page = rest.DeliveryPage{Deliveries: []rest.Delivery{}, NextCursor: "last"}
		}
		if r.URL.Query().Get("cursor") == "last" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(page)
	})
	var got []string
	for d, err := range c.AllDeliveries(t.Context(), DeliveryQuery{}) {
		if err != nil {
			got = append(got, "error")
			continue
		}
		got = append(got, d.ID)
	}
	if strings.Join(got, " ") != "a b error" || pages != 3 {
		t.Errorf("got %v in %d pages", got, pages)
	}
	pages = 0
	for range c.AllDeliveries(t.Context(), DeliveryQuery{}) {
		break
	}
	if pages != 1 {
		t.Errorf("%d pages for one row", pages)
	}
}

func TestFollowEndsInEveryWay(t *testing.T) {
	end := make(chan struct{})
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, ": connected\n\nevent: delivery\ndata: {\"kind\":\"attempt\",\"delivery\":{\"id\":\"del_1\"}}\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	one, err := c.Follow(t.Context(), FollowQuery{})
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	two, err := c.Follow(ctx, FollowQuery{Webhook: "a.b", Status: []string{"failed"}})
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	var last error
	for f, err := range two.All() {
		if last = err; err == nil && f.Delivery.ID != "del_1" {
			t.Errorf("got %+v", f)
		}
		cancel(errors.New("time is up"))
	}
	if last == nil || last.Error() != "time is up" {
		t.Errorf("the stream ended with %v", last)
	}
	close(end)
	if f, err := one.Next(); err != nil || f.Kind != rest.KindAttempt {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := one.Next(); !errors.Is(err, ErrStreamEnded) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestReaderSkipsWhatItDoesNotKnow(t *testing.T) {
	r := NewReader(strings.NewReader(": hello\n\nevent: later\ndata: {}\n\nid: 7\n\nevent:missed\ndata:{\"missed\":\ndata:3}\n\nevent: delivery\ndata: {"))
	if f, err := r.Next(); err != nil || f.Missed != 3 {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := r.Next(); !errors.Is(err, ErrStreamEnded) {
		t.Errorf("half an event: %v", err)
	}
	r = NewReader(strings.NewReader("event: delivery\ndata: nonsense\n\n"))
	if _, err := r.Next(); err == nil || errors.Is(err, ErrStreamEnded) {
		t.Errorf("nonsense: %v", err)
	}
	r = NewReader(strings.NewReader("data: " + strings.Repeat("x", 2*maxLine)))
	if _, err := r.Next(); err == nil || errors.Is(err, ErrStreamEnded) {
		t.Errorf("a line without end: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(": alive\n\nevent: delivery\ndata: {\"kind\":\"attempt\",\"at\":null,\"delivery\":{\"id\":\"del_1\",\"status_code\":null}}\n\n"))
	f.Add([]byte("event: missed\r\ndata: {\"missed\":18446744073709551615}\r\n\r\n"))
	f.Add([]byte("data\nevent\n\n:\n\nevent: missed\ndata: {}\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(strings.NewReader(string(stream)))
		// Every element takes at least one line, so this many steps reach the end.
		for range len(stream) + 2 {
			if _, err := r.Next(); err != nil {
				return
			}
		}
		t.Error("the stream has no end")
	})
}
