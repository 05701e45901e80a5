package zoo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// steer is how an entry's data says what becomes of its delivery:
//
//	{"zoo": "retry", "times": 2}
//
// skip, retry, reject, limit and misconfigured are outcomes, the last with the code
// "zoo". panic panics in the call; die in another goroutine, which ends the process;
// crash exits with [ExitCrash], exit exits with 0, kill sends SIGKILL to itself, stop
// SIGSTOP. hang waits until the call is given up, wedge for ever. slow takes "ms"
// milliseconds. big-state answers a state of 5 KiB. leak puts the token into the log,
// the message and the remote URL. Anything else is delivered.
type steer struct {
	Do    string `json:"zoo"`
	Times int    `json:"times"` // only that many first attempts; 0 = always
	MS    int    `json:"ms"`
}

func steering(data []byte, attempt int) steer {
	var s steer
	_ = json.Unmarshal(data, &s) // other data is delivered
	if s.Times > 0 && attempt > s.Times {
		return steer{}
	}
	return s
}

// act does to a delivery what was asked for.
func (s steer) act(ctx context.Context, state []byte, token string) (sinks.Receipt, error) {
	err := errors.New("as the entry asked for")
	receipt := sinks.Receipt{Message: "delivered by the zoo", State: count(state)}
	switch s.Do {
	case "skip":
		return receipt, sinks.Skip("as the entry asked for")
	case "retry":
		return receipt, sinks.Retry("zoo", 0, err)
	case "reject":
		return receipt, sinks.Reject("zoo", err)
	case "limit":
		return receipt, sinks.RateLimited(time.Duration(s.MS)*time.Millisecond, err)
	case "misconfigured":
		return receipt, sinks.Misconfigured("zoo", err)
	case "panic":
		panic("as the entry asked for")
	case "die":
		go panic("as the entry asked for")
		forever()
	case "crash":
		os.Exit(ExitCrash)
	case "exit":
		os.Exit(0)
	case "kill":
		must(syscall.Kill(os.Getpid(), syscall.SIGKILL))
		forever()
	case "stop":
		stop()
	case "hang":
		<-ctx.Done()
		return receipt, ctx.Err()
	case "wedge":
		forever()
	case "slow":
		time.Sleep(time.Duration(s.MS) * time.Millisecond)
	case "big-state":
		receipt.State = []byte(strings.Repeat("s", 5<<10))
	case "leak":
		fmt.Fprintf(os.Stderr, "the token is %s\n", token)
		receipt.Message = "the token is " + token
		receipt.RemoteURL = "https://example.com/" + token
	}
	return receipt, nil
}

// count is the state of an entry: how many deliveries of it were made.
func count(state []byte) []byte {
	n := 0
	_, _ = fmt.Sscan(string(state), &n)
	return fmt.Append(nil, n+1)
}
