package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"
)

func (l *lab) adminClient() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(l.dir, "admin.sock"))
		}}}
}

func (l *lab) admin(path string) (int, error) {
	resp, err := l.adminClient().Get("http://admin" + path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (l *lab) adminJSON(path string, into any) error {
	return l.adminDo(http.MethodGet, path, into)
}

// adminDo decodes the answer unless into is nil.
func (l *lab) adminDo(method, path string, into any) error {
	req, err := http.NewRequest(method, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	resp, err := l.adminClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// queueCounts is how many deliveries the daemon has in each state.
type queueCounts struct {
	Pending, Success, Failed int64
}

func (l *lab) queueCounts() (queueCounts, error) {
	var s struct {
		Queue struct {
			Counts queueCounts `json:"counts"`
		} `json:"queue"`
	}
	err := l.adminJSON("/v1/status", &s)
	return s.Queue.Counts, err
}

// diskUsage is the blocks that a directory's files have, in bytes: the database's files
// have holes.
func diskUsage(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					n += st.Blocks * 512
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the database removes files while it works
		}
		return err
	})
	return n, err
}
