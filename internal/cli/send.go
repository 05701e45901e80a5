package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// sendFlags is what a send is asked for.
type sendFlags struct {
	event eventFlags

	files  []string
	socket string
	ndjson bool
	skip   int64
	json   bool
}

func (a *app) sendCommand() *cobra.Command {
	f := &sendFlags{}
	c := a.command(&cobra.Command{
		Use:   "send",
		Short: "hands in events: from flags, files or standard input",
		Long: `hands in events: from flags, files or standard input. A file is one JSON document or
one event per line (NDJSON); which of them is seen from its content. Accepted
means written to disk. Exit status 1 when an event was rejected, 75 when the
daemon asks to try again later`,
		Example: `peanuts-relay send --helper expenses --event created --entry e1 --set amount=42.5
peanuts-relay send -f events.ndjson`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.send(cmd, f) },
	})
	flags := c.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, "`FILE` with events, - for standard input; repeatable")
	f.event.register(c)
	flags.StringVar(&f.socket, "socket", "", "`PATH` of the events socket; default listen.events of the configuration")
	flags.BoolVar(&f.ndjson, "ndjson", false, "take the input as one event per line without a look at it first, for a live pipe")
	flags.Int64Var(&f.skip, "skip", 0, "leave out the first `N` lines of the first file, to resume")
	flags.BoolVar(&f.json, "json", false, "print the answers as the daemon gave them, one per line")
	return c
}

func (a *app) send(cmd *cobra.Command, f *sendFlags) error {
	fromFlags := f.event.given(cmd)
	switch {
	case fromFlags != "" && len(f.files) > 0:
		return usagef(seeHelp(cmd), "--%s describes an event, --file reads events: give one of the two", fromFlags)
	case fromFlags == "" && len(f.files) == 0:
		return usagef("give --helper, --event and --entry, or -f FILE, or -f - for standard input; "+seeHelp(cmd), "nothing to send")
	case f.skip < 0 || f.skip > 0 && len(f.files) == 0:
		return usagef(seeHelp(cmd), "--skip counts lines of a file given with -f")
	}
	var body []byte
	if fromFlags != "" {
		var err error
		if body, err = f.event.document(cmd); err != nil {
			return err
		}
	}
	socket, err := a.eventsSocket(f.socket)
	if err != nil {
		return err
	}
	s := &sender{app: a, client: newEventsClient(socket), flags: f}
	defer s.client.close()
	// An interrupted stream must say up to where it got.
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if fromFlags != "" {
		return s.sendDocument(ctx, "", body)
	}
	return s.sendFiles(ctx)
}

// sender hands in the events of one command line.
type sender struct {
	*app

	client *eventsClient
	flags  *sendFlags

	accepted, duplicates, rejected int64
	streamed                       bool // a summary is due
	tryAgain                       bool // every rejection so far was a "not now"
}

func (s *sender) sendFiles(ctx context.Context) error {
	progress := s.newProgress()
	for i, name := range s.flags.files {
		skip := int64(0)
		if i == 0 {
			skip = s.flags.skip
		}
		if err := s.sendFile(ctx, name, skip, progress); err != nil {
			progress.clear()
			s.summary(progress)
			if b, ok := errors.AsType[*brokenStream](err); ok {
				return b.fault(s.resume(s.flags.files[i:]))
			}
			return err
		}
	}
	progress.clear()
	s.summary(progress)
	switch {
	case s.rejected == 0:
		return nil
	case s.tryAgain:
		return exitQuietly(ExitTryAgain)
	}
	return exitQuietly(ExitFailure)
}

// resume is the command line that sends files to the same daemon.
func (s *sender) resume(files []string) []string {
	command := []string{programName, "send"}
	if s.configPath != "" {
		command = append(command, "--config", s.configPath)
	}
	if s.flags.socket != "" {
		command = append(command, "--socket", s.flags.socket)
	}
	for _, f := range files {
		command = append(command, "-f", f)
	}
	return command
}

func (s *sender) sendFile(ctx context.Context, name string, skip int64, p *progress) error {
	var r io.Reader = s.In
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return fileFault(err, "read events")
		}
		defer file.Close()
		r = file
	}
	in, err := detect(r, s.flags.ndjson || skip > 0)
	if err != nil {
		return failf("", "read %s: %w", inputName(name), err)
	}
	switch in.kind {
	case inputEmpty:
		return failf("an event is a JSON object; see peanuts-relay send --help", "%s holds no event", inputName(name))
	case inputDocuments:
		return failf("write one event per line, for example with: jq -c . FILE | peanuts-relay send -f -",
			"%s holds several JSON documents of several lines each", inputName(name))
	case inputArray:
		return failf("write one event per line, for example with: jq -c '.[]' FILE | peanuts-relay send -f -",
			"%s holds a JSON array", inputName(name))
	case inputDocument:
		return s.sendDocument(ctx, name, in.document)
	}
	s.streamed = true
	return s.stream(ctx, inputName(name), p.count(in.lines), skip, p)
}

func inputName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// sendDocument hands in one event and prints the answer.
func (s *sender) sendDocument(ctx context.Context, name string, body []byte) error {
	ans, err := s.client.post(ctx, body, s.flags.event.idempotencyKey)
	if err != nil {
		return err
	}
	if s.flags.json {
		fmt.Fprintf(s.Out, "%s\n", ans.raw)
	}
	if ans.Error != nil {
		what := "event"
		if name != "" {
			what = inputName(name)
		}
		return ans.fault(what)
	}
	s.accepted++
	if !s.flags.json {
		s.printAnswer(ans)
	}
	return nil
}

func (s *sender) printAnswer(ans *answer) {
	st := s.outStyle()
	verdict := st.good("accepted")
	if ans.Duplicate {
		verdict = st.warn("duplicate") + " of"
	}
	fmt.Fprintf(s.Out, "%s %s\n", verdict, oneLine(ans.ID))
	for _, d := range ans.Deliveries {
		fmt.Fprintf(s.Out, "  delivery %s to %s\n", d.ID, d.Webhook)
	}
	for _, k := range ans.Skipped {
		fmt.Fprintf(s.Out, "  skipped %s: %s\n", k.Webhook, k.Reason)
	}
	if len(ans.Deliveries) == 0 && len(ans.Skipped) == 0 {
		fmt.Fprintln(s.Out, "  no webhook wants it")
	}
}
