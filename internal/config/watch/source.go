package watch

import (
	"fmt"

	"github.com/fsnotify/fsnotify"
)

// source is where events come from: one inotify instance.
type source interface {
	// Add watches a directory, not what is below it.
	Add(dir string) error
	// Watched counts the directories that are watched. It is fewer than were
	// added when the kernel has dropped some, with an unmount for example.
	Watched() int
	// Events and Errors must be received from until Close.
	Events() <-chan fsnotify.Event
	Errors() <-chan error
	Close() error
}

// inotify is the real source.
type inotify struct{ *fsnotify.Watcher }

func openEvents() (source, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("ask for file events: %w", err)
	}
	return inotify{w}, nil
}

func (i inotify) Watched() int                  { return len(i.WatchList()) }
func (i inotify) Events() <-chan fsnotify.Event { return i.Watcher.Events }
func (i inotify) Errors() <-chan error          { return i.Watcher.Errors }
