package pluginhost

import (
	"context"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// child is a running process, as package process has it.
type child interface {
	Client() sinkpb.SinkClient
	PID() int
	Done() <-chan struct{}
	Exit() process.Exit
	Dropped() uint64
	Stop(ctx context.Context)
	Abort(dump bool)
}

// executable is an open file that processes are started from.
type executable interface {
	Identity() process.Identity
	Changed() bool
	Close() error
	start(ctx context.Context, o process.Options) (child, error)
}

type openedFile struct{ *process.File }

func openFile(path, sha256 string) (executable, error) {
	f, err := process.Open(path, sha256)
	if err != nil {
		return nil, err
	}
	return &openedFile{f}, nil
}

func (f *openedFile) start(ctx context.Context, o process.Options) (child, error) {
	o.File = f.File
	p, err := process.Start(ctx, o)
	if err != nil {
		return nil, err // a nil *Process would be a child that is not nil
	}
	return p, nil
}
