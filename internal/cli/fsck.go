package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// FsckOptions say what is checked.
type FsckOptions struct {
	Dir      string
	Repair   bool
	Progress func(done, total int64) // bytes
}

// fsckDocument is what fsck found, of which the command line prints a part.
type fsckDocument struct {
	Dir      string `json:"dir"`
	Events   int64  `json:"events"`
	Pending  int64  `json:"pending"`
	Finished int64  `json:"finished"`
	Rows     int64  `json:"rows"`
	Found    int    `json:"problems_found"`
	Problems []struct {
		Where string `json:"where"`
		What  string `json:"what"`
		Means string `json:"means"`
	} `json:"problems"`
	Notes             []string `json:"notes"`
	LostEventCount    int64    `json:"lost_event_count"`
	LostDeliveryCount int64    `json:"lost_delivery_count"`
	Repaired          bool     `json:"repaired"`
	Quarantine        string   `json:"quarantine"`
	BroughtBack       int64    `json:"brought_back"`
}

// fsckMessage is one line of what the process that checks tells the one that asked.
type fsckMessage struct {
	Done   int64           `json:"done,omitempty"`
	Total  int64           `json:"total,omitempty"`
	Report json.RawMessage `json:"report,omitempty"`
	Error  string          `json:"error,omitempty"`
	Hint   string          `json:"hint,omitempty"`
	Code   int             `json:"code,omitempty"`
}

func (a *app) fsckCommand() *cobra.Command {
	var asJSON, child bool
	var o FsckOptions
	c := a.command(&cobra.Command{
		Use:   "fsck",
		Short: "checks the queue of a daemon that is stopped, and repairs it",
		Long: `reads every file and every row of the queue, by default that in queue.dir of the
configuration, and says what is damaged or missing and which events and deliveries that
concerns. It changes nothing. With --repair it builds a queue of everything that can be
read, puts it in place, and keeps the former files in a directory quarantine-TIME beside it.
The daemon must be stopped. Exits with 1 when there are problems that were not repaired`,
		Example: `peanuts-relay fsck
peanuts-relay fsck --repair --dir /var/lib/peanuts-relay`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Dir == "" {
				var err error
				if o.Dir, err = a.queueDirOfAny(); err != nil {
					return err
				}
			}
			if child {
				return a.fsckChild(cmd.Context(), o)
			}
			return a.fsck(cmd.Context(), o, asJSON)
		},
	})
	c.Flags().StringVar(&o.Dir, "dir", "", "the queue's directory instead of queue.dir")
	c.Flags().BoolVar(&o.Repair, "repair", false, "build a queue of what can be read in place of a damaged one")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&child, "in-process", false, "check in this process and print messages")
	if err := c.Flags().MarkHidden("in-process"); err != nil {
		panic(err) // the flag was defined the line before
	}
	return c
}

// fsckChild is the process that checks.
func (a *app) fsckChild(ctx context.Context, o FsckOptions) error {
	if a.deps.Fsck == nil {
		return failf("", "this program was built without the daemon")
	}
	out := json.NewEncoder(a.Out)
	var told time.Time
	o.Progress = func(done, total int64) {
		if now := a.Now(); now.Sub(told) >= progressEvery {
			told = now
			_ = out.Encode(fsckMessage{Done: done, Total: total}) // a pipe that broke ends the process
		}
	}
	report, err := a.deps.Fsck(ctx, o)
	if err != nil {
		m := fsckMessage{Error: err.Error(), Code: exitCode(err)}
		if f, ok := errors.AsType[*fault](err); ok {
			m.Hint = f.hint
		}
		return out.Encode(m)
	}
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return out.Encode(fsckMessage{Report: text})
}

// fsck lets another process of the same program check, so that nothing that damaged
// files do to it is met here.
func (a *app) fsck(ctx context.Context, o FsckOptions, asJSON bool) error {
	args := []string{"fsck", "--in-process"}
	if o.Repair {
		args = append(args, "--repair")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, "--dir="+o.Dir)...)
	cmd.Args[0] = os.Args[0]
	var said bytes.Buffer
	cmd.Stderr = &beginning{b: &said}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start the check: %w", err)
	}
	last, readErr := a.followFsck(out)
	err = cmd.Wait()
	switch {
	case last.Error != "":
		return WithExit(last.Code, errors.New(last.Error), last.Hint)
	case ctx.Err() != nil:
		return WithExit(ExitFailure, errors.New("interrupted"), "nothing was changed but by a repair that was complete; run it again")
	case len(last.Report) == 0:
		return WithExit(ExitStoreFormat, fmt.Errorf("the check of %s ended before it was complete: %w", o.Dir, errors.Join(err, readErr)),
			"the queue was left as it is; keep a copy of it, and report this: "+oneLine(said.String()))
	}
	if asJSON {
		var document any
		if err := json.Unmarshal(last.Report, &document); err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		if err := writeJSON(a.Out, document); err != nil {
			return err
		}
	}
	var d fsckDocument
	if err := json.Unmarshal(last.Report, &d); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	if !asJSON {
		a.printFsck(&d)
	}
	if d.Found > 0 && !d.Repaired {
		return exitQuietly(ExitFailure)
	}
	return nil
}

// followFsck reads messages until the last, and shows how far it is.
func (a *app) followFsck(r io.Reader) (last fsckMessage, err error) {
	p := &progress{now: a.Now, start: a.Now(), width: a.ErrTerm.Width}
	if p.width > 0 {
		p.w = a.Err
	}
	defer p.clear()
	for in := json.NewDecoder(r); ; {
		var m fsckMessage
		if err := in.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return last, err
		}
		if last = m; m.Total > 0 {
			p.total = m.Total
			p.read.Store(m.Done)
			p.drawText(fmt.Sprintf("%s of %s read", byteSize(m.Done), byteSize(m.Total)))
		}
	}
}

func (a *app) printFsck(d *fsckDocument) {
	st := a.outStyle()
	const most = 1000 // lines
	for i, p := range d.Problems {
		if i == most {
			break
		}
		line := p.Where + ": " + p.What
		if p.Means != "" {
			line += ": " + p.Means
		}
		fmt.Fprintln(a.Out, st.bad("problem:"), oneLine(line))
	}
	if more := d.Found - min(len(d.Problems), most); more > 0 {
		fmt.Fprintf(a.Out, "and %s more\n", grouped(int64(more)))
	}
	for _, n := range d.Notes {
		fmt.Fprintln(a.Out, "note:", oneLine(n))
	}
	fmt.Fprintf(a.Out, "%s: %s rows, %s events, %s pending and %s finished deliveries; %s\n", d.Dir, grouped(d.Rows), grouped(d.Events),
		grouped(d.Pending), grouped(d.Finished), a.fsckResult(d))
	switch {
	case d.Repaired:
		fmt.Fprintf(a.Out, "repaired: the daemon can be started. %s brought back. What was before is in %s, with report.json, which has all ids; delete it when nobody needs it\n",
			plural(d.BroughtBack, "delivery was", "deliveries were"), d.Quarantine)
	case d.Found > 0:
		fmt.Fprintln(a.Err, "nothing was changed: keep a copy of the directory, then run peanuts-relay fsck --repair, or restore it from a backup")
	}
}

func (a *app) fsckResult(d *fsckDocument) string {
	if d.Found == 0 {
		return a.outStyle().good("no problems")
	}
	text := plural(d.Found, "problem", "problems")
	if d.LostEventCount+d.LostDeliveryCount == 0 {
		return text + ", nothing is known to be lost"
	}
	return text + ", lost: " + plural(d.LostEventCount, "event", "events") + " and " + plural(d.LostDeliveryCount, "delivery", "deliveries")
}

// beginning keeps the beginning of what a process says, which names the cause.
type beginning struct{ b *bytes.Buffer }

func (t *beginning) Write(p []byte) (int, error) {
	const most = 2 << 10
	if room := most - t.b.Len(); room > 0 {
		t.b.WriteString(strings.ToValidUTF8(string(p[:min(room, len(p))]), "?"))
	}
	return len(p), nil
}
