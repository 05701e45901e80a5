package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func refusedWith(err error, status int, code string) bool {
	e, ok := errors.AsType[*adminclient.Error](err)
	return ok && e.Status == status && e.Code == code
}

// One read of the whole store is enough at a time, and none outlasts the daemon.
func TestABackupIsAloneAndEndsWithTheDaemon(t *testing.T) {
	w := newWorld(t)
	w.store.held = make(chan struct{})
	w.start(t)
	began := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		body, err := w.client.Backup(context.Background())
		began <- err
		if err == nil {
			_, err = io.Copy(io.Discard, body)
			body.Close()
		}
		ended <- err
	}()
	<-w.store.held
	if _, err := w.client.Audit(t.Context(), nil); !refusedWith(err, http.StatusTooManyRequests, rest.CodeTooMany) {
		t.Errorf("a second one: %v", err)
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-began
	if err := <-ended; err == nil {
		t.Error("a backup that was given up ended as if it were whole")
	}
}

func TestAnAuditThatCannotBeMadeSaysWhy(t *testing.T) {
	for code, err := range map[string]error{
		rest.CodeUnavailable: queue.ErrStopped,
		rest.CodeNoSpace:     &queue.SpaceError{What: "disk space", Path: "/q", Free: 1, Need: 2},
	} {
		w := newWorld(t)
		w.store.err = err
		w.start(t)
		status := map[string]int{rest.CodeUnavailable: http.StatusServiceUnavailable, rest.CodeNoSpace: http.StatusInsufficientStorage}[code]
		if _, err := w.client.Audit(t.Context(), nil); !refusedWith(err, status, code) {
			t.Errorf("audit: %v", err)
		}
		if _, err := w.client.Backup(t.Context()); !refusedWith(err, status, code) {
			t.Errorf("backup: %v", err)
		}
		w.store.err = nil
		if _, err := w.client.Audit(t.Context(), nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

func TestIDsAreLookedUpInBoundedNumbers(t *testing.T) {
	w := newWorld(t).start(t)
	ids := make([]string, maxAuditIDs+1)
	for i := range ids {
		ids[i] = fmt.Sprintf("own-%d", i)
	}
	if _, err := w.client.AuditEvents(t.Context(), ids); !refusedWith(err, http.StatusBadRequest, rest.CodeBadRequest) {
		t.Errorf("%d ids: %v", len(ids), err)
	}
	got, err := w.client.AuditEvents(t.Context(), ids[1:])
	if err != nil || len(got.Events) != maxAuditIDs || !slices.ContainsFunc(got.Events, func(e rest.AuditAccount) bool { return !e.Known }) {
		t.Errorf("%d answers: %v", len(got.Events), err)
	}
}
