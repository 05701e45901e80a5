// Command torture runs the scoreboard of docs/reliability.md: for each fault or bad
// input the tests that bring it about, again and again with fresh seeds and growing
// counts for as long as is asked for, and the negative controls beside them.
//
// What it guarantees: a row counts as held only when tests of it ran and passed, none
// of them failed or lost anything, and its control was caught in the same run. What
// cannot run on this machine is named with the reason that the test gives; what nobody
// has written yet is named as that. A failure comes with its seed and the command that
// repeats it, and ends the program with 1. However it ends, no process that it
// started, no mount and no temporary file is left; the logs are kept.
//
// scripts/torture builds it and calls it in the root of the repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const help = `Breaks Peanuts Relay in every way of the scoreboard, and counts what was lost.

  scripts/torture                    ten minutes of everything
  scripts/torture --minutes 120      the longer, the higher the counts
  scripts/torture --rows 1,2,7       these rows of the scoreboard only
  scripts/torture --list             the rows, their tests, controls and needs; runs nothing
  scripts/torture --planted          builds one planted bug after the other; each must be caught
  scripts/torture --rows 1 --seed 7  the same random choices as the run that printed this seed

It needs Go and git, and Linux. As root everything runs; without root, or without the
programs that --list names, the tests that need them are skipped and say why.

First every row runs in its short form, once: that is what each push runs, and it is always
finished, however few the minutes are. The rest of the time goes to the rows
whose counts can grow, evenly, with more cases and another seed each time. The minutes
begin when the test binaries are built.

  result    held                 tests ran, passed, and lost nothing
            FAILED               one did not; its command is below the table
            skipped: why         nothing of it can run here
            not there yet        nobody has written a test of it
  control   caught               what must fail, failed: a row without that says nothing
            NOT CAUGHT           the test would not notice the fault

Ends with 0 when nothing failed and every control was caught, 1 when not, 2 for a wrong
flag, and 130 after Ctrl-C. PEANUTS_TEST_SEED is set for each test from --seed, so that the
command below a failure repeats its random choices; moments in time it cannot repeat.

Flags:
`

// options are what the command line says.
type options struct {
	minutes  float64
	rows     []int // numbers; nil = all
	seed     uint64
	list     bool
	planted  bool
	markdown bool
	race     bool
	json     string // file
	logs     string // directory; "" = one in the system's temporary directory

	root  string // of the repository
	board []row
	bugs  []bug
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		o.board = scoreboard()
		o.bugs, err = plantedBugs()
	}
	if err == nil {
		err = o.choose()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// parse reads the command line. Help goes to w.
func parse(args []string, w io.Writer) (options, error) {
	o := options{root: "."}
	var rows string
	f := flag.NewFlagSet("torture", flag.ContinueOnError)
	f.SetOutput(w)
	f.Usage = func() {
		fmt.Fprint(w, help)
		f.PrintDefaults()
	}
	f.Float64Var(&o.minutes, "minutes", 10, "how long; the first round is always finished")
	f.StringVar(&rows, "rows", "", "numbers of rows, separated by commas (default all)")
	f.Uint64Var(&o.seed, "seed", 0, "where all random choices come from (default the clock)")
	f.BoolVar(&o.list, "list", false, "print rows, tests, controls and needs, and run nothing")
	f.BoolVar(&o.planted, "planted", false, "run the planted bugs instead of the rows")
	f.BoolVar(&o.markdown, "markdown", false, "print the table as docs/reliability.md has it")
	f.BoolVar(&o.race, "race", false, "with the race detector, which is several times slower")
	f.StringVar(&o.json, "json", "", "write the table to this file, too")
	f.StringVar(&o.logs, "logs", "", "directory for the logs (default a new one in the system's temporary directory)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if o.minutes < 0 {
		return o, errors.New("--minutes must not be negative")
	}
	for _, text := range strings.FieldsFunc(rows, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(text)
		if err != nil {
			return o, fmt.Errorf("--rows: %q is no number", text)
		}
		o.rows = append(o.rows, n)
	}
	for o.seed == 0 {
		o.seed = rand.Uint64() >> 1
	}
	return o, nil
}

// choose leaves the rows that were asked for.
func (o *options) choose() error {
	for _, n := range o.rows {
		if !slices.ContainsFunc(o.board, func(r row) bool { return r.number == n }) {
			return fmt.Errorf("--rows: there is no row %d; see --list", n)
		}
	}
	if o.rows != nil {
		o.board = slices.DeleteFunc(o.board, func(r row) bool { return !slices.Contains(o.rows, r.number) })
		o.bugs = slices.DeleteFunc(o.bugs, func(b bug) bool { return !slices.Contains(o.rows, b.row) })
	}
	return nil
}

// run does what o says and returns the status of the program.
func run(ctx context.Context, o options, stdout, stderr io.Writer) int {
	if o.list {
		list(stdout, o.board, o.bugs)
		return 0
	}
	fail := func(err error) int {
		if ctx.Err() != nil {
			fmt.Fprintln(stderr, "torture: interrupted")
			return 130
		}
		fmt.Fprintln(stderr, "torture:", err)
		return 1
	}
	lab, err := newLab(o, stderr)
	if err != nil {
		return fail(err)
	}
	defer lab.close()
	if o.planted {
		return lab.plant(ctx, o.bugs, stdout)
	}
	tasks := tasksOf(o.board, o.minutes)
	if err := lab.buildAll(ctx, tasks); err != nil {
		return fail(err)
	}
	fmt.Fprintf(stderr, "torture: seed %d, logs in %s\n", o.seed, lab.logs)
	live := newLive(stderr, o.board)
	began := time.Now()
	s := scheduler{tasks: tasks, places: 2, deadline: began.Add(time.Duration(o.minutes * float64(time.Minute))), run: lab.run, show: live.show, seed: o.seed}
	s.schedule(ctx)
	live.end()
	b := newScoreboard(o.board, tasks, o.seed, time.Since(began), lab.logs)
	b.Interrupted = ctx.Err() != nil
	if o.markdown {
		b.markdown(stdout)
	} else {
		b.text(stdout)
	}
	if o.json != "" {
		if err := b.writeJSON(o.json); err != nil {
			return fail(err)
		}
	}
	return b.status()
}
