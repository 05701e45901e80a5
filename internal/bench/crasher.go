package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// crasherFile is the name under which this program is a plugin that exits at each delivery.
const crasherFile = "peanuts-sink-crasher"

type noSettings struct{}

type crasher struct{}

func (crasher) Deliver(context.Context, *sinks.Delivery) (sinks.Receipt, error) {
	os.Exit(3)
	return sinks.Receipt{}, nil
}

// playCrasher plays the plugin when the program was started as one.
func playCrasher() {
	if filepath.Base(os.Args[0]) != crasherFile {
		return
	}
	sinks.Serve(sinks.Plugin[noSettings]{
		Name: "crasher", Version: "1.0.0", Summary: "exits at each delivery",
		Open: func(context.Context, sinks.Env, noSettings) (sinks.Sink, error) { return crasher{}, nil },
	})
}

func crasherPath(dir string) string { return filepath.Join(dir, "plugins", crasherFile) }

// installCrasher copies this program to where the daemon starts it as the plugin. Two versions
// differ in their checksums only.
func installCrasher(dir string, version int) (err error) {
	path := crasherPath(dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		_, err = fmt.Fprintf(out, "version %d", version)
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
