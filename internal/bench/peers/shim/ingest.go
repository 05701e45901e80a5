package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"
)

// maxEvent is the relay's limit for an event.
const maxEvent = 1 << 20

// newIngest answers POST /v1/events: 202 once the event is stored, 404 for a helper
// that has no destination.
func newIngest(put enqueue, to []*destination) http.Handler {
	known := map[string]bool{}
	for _, d := range to {
		known[d.helper] = true
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/events", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
		var e struct{ Helper struct{ ID string } }
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		case !known[e.Helper.ID]:
			http.Error(w, "no such helper", http.StatusNotFound)
			return
		}
		if err := put(r.Context(), e.Helper.ID, body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

// serve answers on the Unix socket until ctx is done.
func serve(ctx context.Context, socket string, h http.Handler) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
