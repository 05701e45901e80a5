package zoo

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// starts are the animals that fail before a host can call them. It is long because it is a
// table:
//
//	crash-start-N     exits with ExitCrash; with a number, only the first N times, counted in <executable>.starts
//	panic-start       panics
//	exit-0            exits with 0 at once
//	hang-start        never says a handshake
//	stop-start        stops itself with SIGSTOP instead
//	garbage           says something else
//	core, protocol, netrpc, network, socket-outside, socket-link, socket-missing,
//	socket-file, certificate   say a handshake that is wrong in this one way
//	cookie            expects another cookie
//	name              describes itself by another name
//	mute              listens, accepts, and never answers
//	deaf              listens, and never accepts
//	crash-handshake   exits with ExitCrash after its handshake
func starts() map[string]func(animal) {
	return map[string]func(animal){
		"crash-start": func(a animal) {
			if a.n > 0 && startsSoFar() > a.n {
				a.raw().serve()
				return
			}
			fmt.Fprintln(os.Stderr, "I cannot find my shoes")
			os.Exit(ExitCrash)
		},
		"panic-start": func(animal) { panic("I cannot find my shoes") },
		"exit-0":      func(animal) {},
		"hang-start":  func(animal) { forever() },
		"stop-start": func(animal) {
			must(syscall.Kill(os.Getpid(), syscall.SIGSTOP))
			forever()
		},
		"garbage":        claim(func(string) string { return "good morning" }),
		"core":           claim(func(s string) string { return "2|1|unix|" + s + "|grpc|" }),
		"protocol":       claim(func(s string) string { return "1|2|unix|" + s + "|grpc|" }),
		"netrpc":         claim(func(s string) string { return "1|1|unix|" + s + "|netrpc|" }),
		"socket-missing": claim(func(s string) string { return "1|1|unix|" + s + "-not|grpc|" }),
		"certificate":    claim(func(s string) string { return "1|1|unix|" + s + "|grpc|" + strings.Repeat("QUJD", 20) }),
		"socket-outside": claim(func(s string) string {
			return "1|1|unix|" + filepath.Join(filepath.Dir(s), "..", "zoo") + "|grpc|"
		}),
		"network": func(animal) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(err)
			say(l)
			forever()
		},
		"socket-link": func(animal) {
			l := listen()
			link := filepath.Join(socketDir(), "link")
			must(os.Symlink(l.Addr().String(), link))
			fmt.Printf("1|1|unix|%s|grpc|\n", link)
			forever()
		},
		"socket-file": func(animal) {
			path := filepath.Join(socketDir(), "file")
			must(os.WriteFile(path, nil, 0o600))
			fmt.Printf("1|1|unix|%s|grpc|\n", path)
			forever()
		},
		"cookie": func(a animal) {
			h := handshake()
			h.MagicCookieValue = "another"
			a.raw().serveAs(h)
		},
		"name": func(a animal) {
			a.name = "somebody-else"
			a.serve(sinks.Capabilities{}, single)
		},
		"mute": func(animal) {
			l := listen()
			say(l)
			var conns []net.Conn // kept: one that nobody knows any more is closed
			for {
				conn, err := l.Accept()
				must(err)
				conns = append(conns, conn)
				runtime.KeepAlive(conns)
			}
		},
		"deaf": func(animal) {
			say(listen())
			forever()
		},
		"crash-handshake": func(animal) {
			say(listen())
			os.Exit(ExitCrash)
		},
	}
}

// claim listens where it should, says what line makes of the socket's path, and waits.
func claim(line func(socket string) string) func(animal) {
	return func(animal) {
		exitWithHost()
		fmt.Println(line(listen().Addr().String()))
		time.Sleep(lifetime)
	}
}

// startsSoFar counts the starts of this executable, this one included.
func startsSoFar() int {
	self, err := os.Executable()
	must(err)
	f, err := os.OpenFile(self+".starts", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(err)
	_, err = f.WriteString(".")
	must(err)
	info, err := f.Stat()
	must(err)
	must(f.Close())
	return int(info.Size())
}
