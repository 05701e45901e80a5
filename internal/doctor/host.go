package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// fewFiles is how many descriptors a daemon should be allowed: two for each
	// connection, and the database's own.
	fewFiles = 4096
	// fewInodes is how many a file system should have left.
	fewInodes = 10_000
	// jump is how far relay time may be off the wall clock before that is worth a word.
	jump = 5 * time.Minute
)

// host looks at the machine that the daemon runs on.
func (d *doctor) host() {
	d.subject = "host"
	d.disk()
	d.clock()
	d.limits()
	d.inotify()
	d.sockets()
	d.unit()
}

func (d *doctor) queueDir() string {
	switch {
	case d.Status != nil:
		return d.Status.Queue.Dir
	case d.Config != nil:
		return d.Config.Queue.Dir
	}
	return ""
}

func (d *doctor) disk() {
	dir := d.queueDir()
	if dir == "" {
		d.skip("disk", "queue.dir is not known")
		return
	}
	at := d.at("queue", "dir")
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err != nil {
		if errors.Is(err, fs.ErrNotExist) && d.Status == nil {
			d.skip("disk", "%s does not exist yet; the first start makes it", dir)
			return
		}
		d.bad(at, "disk", Failed, fmt.Sprintf("%s: %v", dir, err), "make the directory, owned by the daemon's user, mode 0700")
		return
	}
	free, total := int64(fsys.Bavail)*fsys.Bsize, int64(fsys.Blocks)*fsys.Bsize
	least := min(max(total/20, 512<<20), 4<<30)
	if d.Config != nil && d.Config.Queue.MinFree > 0 {
		least = d.Config.Queue.MinFree
	}
	if d.Status != nil && d.Status.Queue.MinFree > 0 {
		least = d.Status.Queue.MinFree
	}
	min := d.at("queue", "min_free")
	switch {
	case free < least:
		d.bad(min, "disk", Failed, fmt.Sprintf("%s free at %s, less than the %s that must stay: events are refused", size(free), dir, size(least)), "make room, or lower queue.min_free or history.max_bytes")
	case free < 2*least:
		d.bad(min, "disk", Warning, fmt.Sprintf("%s free at %s; below %s events are refused", size(free), dir, size(least)), "make room, or lower history.max_bytes")
	case fsys.Files > 0 && fsys.Ffree < fewInodes:
		d.bad(at, "disk", Warning, fmt.Sprintf("%d inodes free at %s", fsys.Ffree, dir), "remove small files there")
	default:
		d.ok("disk", "%s free at %s; %s must stay", size(free), dir, size(least))
	}
	d.owner(dir)
	if s := d.Status; s != nil && s.Queue.MaxBytes > 0 {
		used := 100 * s.Queue.Counts.LiveBytes / s.Queue.MaxBytes
		if used >= 80 {
			d.bad(d.at("queue", "max_bytes"), "queue", Warning, fmt.Sprintf("%d %% of queue.max_bytes is in use by what waits (%s): at 100 %% events are refused", used, size(s.Queue.Counts.LiveBytes)),
				"peanuts-relay webhooks shows for whom it waits; raise max_bytes, or drop what nobody wants")
		} else {
			d.ok("queue", "%d %% of queue.max_bytes in use, %d deliveries wait", used, s.Queue.Counts.Pending)
		}
		if s.Queue.Quarantined > 0 {
			d.bad(Result{}, "queue", Warning, fmt.Sprintf("%d damaged records were set aside", s.Queue.Quarantined), "peanuts-relay audit names what is missing; look at the disk")
		}
	}
}

// owner looks at who may read the queue.
func (d *doctor) owner(dir string) {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return
	}
	if st.Mode&0o077 != 0 {
		d.bad(d.at("queue", "dir"), "queue.dir", Warning, fmt.Sprintf("%s has mode %04o: others can look at payloads", dir, st.Mode&0o7777), "chmod 700 "+dir)
	}
	if owner, ok := d.daemonUID(); ok && owner != st.Uid {
		d.bad(d.at("queue", "dir"), "queue.dir", Failed, fmt.Sprintf("%s belongs to user %d, the daemon runs as %d", dir, st.Uid, owner), fmt.Sprintf("chown -R %d %s", owner, dir))
	}
}

func (d *doctor) daemonUID() (uint32, bool) {
	if d.Status == nil {
		return 0, false
	}
	info, err := os.Stat(filepath.Join(d.proc, strconv.Itoa(d.Status.PID)))
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st.Uid, ok
}

// clock asks the kernel whether the clock is kept right, and compares it with relay
// time, which never jumps.
func (d *doctor) clock() {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	switch {
	case err != nil:
		d.skip("clock", "the kernel does not say whether the clock is synchronised: %v", err)
	case state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0:
		d.bad(Result{}, "clock", Warning, "the kernel says that the system clock is not synchronised; receivers refuse timestamps that are minutes off", "timedatectl set-ntp true, or run chrony; in a container it is the host's")
	default:
		d.ok("clock", "the system clock is synchronised")
	}
	if d.Status == nil {
		return
	}
	if ahead := d.Status.Queue.ClockAhead.Duration(); ahead > jump || ahead < -jump {
		d.bad(Result{}, "clock jump", Warning, fmt.Sprintf("the system clock was set by %s while the daemon ran: retries go by the time that really passed, times in the log are those of the clock", (-ahead).Round(time.Second)),
			"none needed if the clock is right now; a restart brings both together, by at most a day")
	} else {
		d.ok("clock jump", "the clock was not set since the daemon's start")
	}
}

// limits are those of the running daemon.
func (d *doctor) limits() {
	if d.Status == nil {
		return
	}
	dir := filepath.Join(d.proc, strconv.Itoa(d.Status.PID))
	text, err := os.ReadFile(filepath.Join(dir, "limits"))
	if err != nil {
		d.skip("descriptors", "the limits of process %d cannot be read: %v", d.Status.PID, reason(err))
		return
	}
	limit := int64(-1)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if f := strings.Fields(rest); len(f) > 0 && f[0] != "unlimited" {
				limit, _ = strconv.ParseInt(f[0], 10, 64)
			}
		}
	}
	open := -1
	if entries, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
		open = len(entries)
	}
	switch {
	case limit >= 0 && open >= 0 && int64(open)*5 > limit*4:
		d.bad(Result{}, "descriptors", Failed, fmt.Sprintf("%d of %d file descriptors are open", open, limit), "LimitNOFILE= of the unit; then restart")
	case limit >= 0 && limit < fewFiles:
		d.bad(Result{}, "descriptors", Warning, fmt.Sprintf("the daemon may open %d files", limit), fmt.Sprintf("LimitNOFILE=%d or more in the unit; then restart", 16*fewFiles))
	default:
		d.ok("descriptors", "%d open, limit %d", open, limit)
	}
	d.memory()
}

// memory looks at the limit of the daemon's control group, of version 2 or 1.
func (d *doctor) memory() {
	text, err := os.ReadFile(filepath.Join(d.proc, strconv.Itoa(d.Status.PID), "cgroup"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		file := ""
		switch {
		case parts[1] == "":
			file = filepath.Join("/sys/fs/cgroup", parts[2], "memory.max")
		case parts[1] == "memory":
			file = filepath.Join("/sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes")
		default:
			continue
		}
		value, err := os.ReadFile(file)
		limit, bad := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		const least = 384 << 20
		if err != nil || bad != nil || limit > 1<<50 {
			continue
		}
		if limit < least {
			d.bad(Result{}, "memory", Warning, "the daemon's control group has "+size(limit)+" of memory; it plans with 256 MiB and the plugins come on top", "MemoryMax=512M or more in the unit, or a smaller GOMEMLIMIT")
			return
		}
		d.ok("memory", "the control group has %s", size(limit))
		return
	}
}

func (d *doctor) inotify() {
	for name, least := range map[string]int64{"max_user_instances": 16, "max_user_watches": 1024} {
		text, err := os.ReadFile(filepath.Join(d.proc, "sys/fs/inotify", name))
		n, bad := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err == nil && bad == nil && n < least {
			d.bad(Result{}, "inotify", Warning, fmt.Sprintf("fs.inotify.%s is %d: changed files may be noticed late", name, n), "sysctl fs.inotify."+name+"=65536")
		}
	}
}

// sockets looks at who may connect.
func (d *doctor) sockets() {
	events, admin := "", ""
	switch {
	case d.Status != nil:
		events, admin = d.Status.Listen.Events, d.Status.Listen.Admin
	case d.Config != nil:
		events, admin = d.Config.Listen.Events, d.Config.Listen.Admin
	}
	for _, s := range []struct{ key, path string }{{"events", events}, {"admin", admin}} {
		if s.path == "" {
			continue
		}
		check, at := "listen."+s.key, d.at("listen", s.key)
		info, err := os.Stat(s.path)
		switch {
		case err != nil && d.Status == nil:
			continue // the start makes it
		case err != nil:
			d.bad(at, check, Failed, fmt.Sprintf("%s: %v; the daemon listens on a file that nobody finds", s.path, reason(err)), "systemctl restart peanuts-relay")
		case info.Mode().Type() != fs.ModeSocket:
			d.bad(at, check, Failed, s.path+" is not a socket", "remove it and restart the daemon")
		case s.key == "admin" && info.Mode().Perm()&0o077 != 0:
			d.bad(at, check, Failed, fmt.Sprintf("%s has mode %04o: others than its user control the relay", s.path, info.Mode().Perm()), "chmod 600 "+s.path)
		default:
			st, _ := info.Sys().(*syscall.Stat_t)
			d.ok(check, "%s, mode %04o, user %d, group %d", s.path, info.Mode().Perm(), st.Uid, st.Gid)
			if s.key == "events" && st.Gid == st.Uid && info.Mode().Perm() == 0o660 && d.Config != nil && d.Config.Listen.EventsGroup == "" && st.Uid != 0 {
				d.bad(d.at("listen", "events_group"), check, Warning, "only the daemon's own group may hand in events", "listen.events_group names the group of the programs that send")
			}
		}
	}
}

// unit asks systemd, where it runs.
func (d *doctor) unit() {
	if d.show == nil || d.Status == nil {
		return
	}
	cgroup, err := os.ReadFile(filepath.Join(d.proc, strconv.Itoa(d.Status.PID), "cgroup"))
	if err != nil {
		return
	}
	name := ""
	for part := range strings.FieldsFuncSeq(string(cgroup), func(r rune) bool { return r == '/' || r == '\n' || r == ':' }) {
		if strings.HasSuffix(part, ".service") {
			name = part
		}
	}
	if name == "" {
		d.skip("systemd", "the daemon does not run as a service")
		return
	}
	out, err := d.show(name)
	if err != nil {
		d.skip("systemd", "systemctl show %s: %v", name, err)
		return
	}
	facts := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		facts[key] = value
	}
	before := "ok"
	if facts["NeedDaemonReload"] == "yes" {
		before = "changed"
		d.bad(Result{}, "systemd", Warning, name+" was changed on the disk since systemd read it", "systemctl daemon-reload")
	}
	if n, _ := strconv.Atoi(facts["NRestarts"]); n > 0 {
		before = "restarted"
		d.bad(Result{}, "systemd", Warning, fmt.Sprintf("%s was restarted %d times by itself", name, n), "journalctl -u "+name+" says why")
	}
	if facts["UnitFileState"] == "disabled" {
		before = "disabled"
		d.bad(Result{}, "systemd", Warning, name+" is not started at boot", "systemctl enable "+name)
	}
	if before == "ok" {
		d.ok("systemd", "%s, type %s, restart %s", name, facts["Type"], facts["Restart"])
	}
}

func showUnit(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// #nosec G204 -- the name is that of a unit, as the kernel has it
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=NRestarts,UnitFileState,Type,Restart,NeedDaemonReload", "--", name).Output()
	return string(out), err
}

func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

func size(n int64) string {
	value, unit := float64(n), 0
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return strconv.FormatFloat(value, 'f', min(unit, 1), 64) + " " + units[unit]
}
