// Package zoo is sink plugins for tests: some that work, and every way in which one can
// fail or do harm.
//
// Guarantee: a test binary whose TestMain calls [Main] first plays the plugin that its
// name or its end says and nothing else; under any other name Main does nothing. No
// animal outlives [lifetime].
package zoo

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// filePrefix is what the name of every plugin's executable begins with.
	filePrefix = "peanuts-sink-"
	// namePrefix is what the name of an animal begins with.
	namePrefix = "zoo-"
	// sleeper is a process that a plugin leaves behind.
	sleeper = namePrefix + "sleeper"
	// lifetime is how long an animal lives whatever happens.
	lifetime = 10 * time.Minute
)

// animal is one plugin that is played.
type animal struct {
	behaviour string
	name      string // what its executable is called after peanuts-sink-
	version   string
	n         int // the number at the end of the behaviour; 0 = there is none
}

// Main plays a plugin and exits when the program is one. Call it first in TestMain.
func Main() {
	name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), filePrefix)
	if !ok {
		return
	}
	if name == sleeper {
		sleep()
	}
	a := animal{name: name, version: "1.0.0"}
	if behaviour, version, ok := readEnd(); ok {
		a.behaviour, a.version = behaviour, version
	} else if a.behaviour, ok = strings.CutPrefix(name, namePrefix); !ok {
		return
	}
	time.AfterFunc(lifetime, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	play, ok := behaviours()[a.behaviour]
	if i := strings.LastIndexByte(a.behaviour, '-'); !ok && i > 0 {
		var err error
		a.n, err = strconv.Atoi(a.behaviour[i+1:])
		play, ok = behaviours()[a.behaviour[:i]]
		ok = ok && err == nil
	}
	if !ok {
		fmt.Fprintf(os.Stderr, "the zoo has no %q\n", a.behaviour)
		os.Exit(exitUnknown)
	}
	play(a)
	os.Exit(0)
}

// How animals exit on purpose.
const (
	ExitCrash   = 3 // a crash by exit
	exitUnknown = 70
	exitBroken  = 71 // the zoo itself could not go on
)

// Name is what the plugin of a behaviour is called by [Install].
func Name(behaviour string) string { return namePrefix + behaviour }

// Behaviours are all there are, sorted. Some take a number: see the package's files.
func Behaviours() []string { return slices.Sorted(maps.Keys(behaviours())) }

// behaviours says how each is played. A play that returns exits with status 0.
func behaviours() map[string]func(animal) {
	all := map[string]func(animal){}
	for _, some := range []map[string]func(animal){working(), starts(), calls(), answers(), outputs(), processes()} {
		maps.Copy(all, some)
	}
	return all
}

// must ends an animal that cannot do what it is for.
func must(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "zoo: %v\n", err)
		os.Exit(exitBroken)
	}
}

// forever never returns.
func forever() { <-make(chan struct{}) }
