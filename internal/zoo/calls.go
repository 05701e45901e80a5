package zoo

import (
	"net"
	"os"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// calls are the animals that fail in a call:
//
//	crash-describe, crash-validate, crash-configure, crash-deliver, crash-health, crash-drain
//	                 exit with ExitCrash there
//	hang-…           at the same points: never answer
//	crash-batch-N    exits with ExitCrash at the Nth call of Deliver of the process, the 3rd without a number
//	panic-deliver    panics in a goroutine at every Deliver: the process dies and writes a stack
//	stopped          stops itself with SIGSTOP at every Deliver
//	close-socket     stops listening and drops its connections at every Deliver, and lives
func calls() map[string]func(animal) {
	all := map[string]func(animal){
		"crash-batch": func(a animal) {
			r, n := a.raw(), atomic.Int64{}
			r.before = at("deliver", func() {
				if n.Add(1) >= int64(a.number(3)) {
					os.Exit(ExitCrash)
				}
			})
			r.serve()
		},
		"panic-deliver": func(a animal) {
			r := a.raw()
			r.before = at("deliver", func() {
				go panic("the stairs were wet")
				forever()
			})
			r.serve()
		},
		"stopped": func(a animal) {
			r := a.raw()
			r.before = at("deliver", stop)
			r.serve()
		},
		"close-socket": func(a animal) {
			exitWithHost()
			r, g, l := a.raw(), grpc.NewServer(), listen()
			r.before = at("deliver", func() {
				go g.Stop()
				forever()
			})
			sinkpb.RegisterSinkServer(g, r)
			say(l)
			_ = g.Serve(onlyClose{l})
			forever()
		},
	}
	for _, point := range []string{"describe", "validate", "configure", "deliver", "health", "drain"} {
		all["crash-"+point] = func(a animal) {
			r := a.raw()
			r.before = at(point, func() { os.Exit(ExitCrash) })
			r.serve()
		}
		all["hang-"+point] = func(a animal) {
			r := a.raw()
			r.before = at(point, forever)
			r.serve()
		}
	}
	return all
}

func at(point string, do func()) func(string) error {
	return func(call string) error {
		if call == point {
			do()
		}
		return nil
	}
}

// onlyClose leaves the socket's file behind.
type onlyClose struct{ net.Listener }

func (l onlyClose) Close() error {
	l.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	return l.Listener.Close()
}
