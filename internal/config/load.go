package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/go-viper/mapstructure/v2"
	kmaps "github.com/knadh/koanf/maps"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

const (
	// DefaultPath is where the file is when nobody says otherwise.
	DefaultPath = "/etc/peanuts-relay/config.yaml"
	// PathVariable is the environment variable that names the file.
	PathVariable = "PEANUTS_RELAY_CONFIG"
)

// ErrNotFound is returned by [Find] when there is no file.
var ErrNotFound = errors.New("no configuration file")

// Find says which file to load: flag, else $PEANUTS_RELAY_CONFIG, else
// [DefaultPath]. Only the last is looked for; it is [ErrNotFound] when it is not
// there. A nil lookup is os.LookupEnv.
func Find(flag string, lookup func(string) (string, bool)) (string, error) {
	if lookup == nil {
		lookup = os.LookupEnv
	}
	if flag != "" {
		return flag, nil
	}
	if path, _ := lookup(PathVariable); path != "" {
		return path, nil
	}
	if _, err := os.Stat(DefaultPath); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s does not exist; name one with --config or %s", ErrNotFound, DefaultPath, PathVariable)
	}
	return DefaultPath, nil
}

// Options say what to load and stand in for the process's environment.
type Options struct {
	// Path is the main file.
	Path string
	// Files, unless nil, are read instead of the main file and its drop-ins: the
	// main file first, the drop-ins in the order of their names. The disk is then
	// asked for what they refer to only. Relative paths in them start at the
	// directory of the first one's Path. They are not modified.
	Files []File
	// LookupEnv reads the environment; nil is os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Getuid is the user of the daemon, for the defaults of the paths and the
	// owners of plugins; nil is os.Getuid.
	Getuid func() int
	// WithoutPlugins makes warnings of the errors that come from the executables of
	// plugins: their webhooks are held until the executables are as they must be.
	WithoutPlugins bool
}

// complete is o with the process's environment where o has none.
func (o Options) complete() Options {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.Getuid == nil {
		o.Getuid = os.Getuid
	}
	return o
}

// Load reads, merges, expands and checks the configuration. The Config is nil
// when the Report has errors; the Report never is. Concurrent calls are
// independent of each other.
func Load(o Options) (*Config, *Report) {
	l := newLoader(o.complete())
	cfg := l.load()
	l.finish()
	if l.report.Err() != nil {
		return nil, l.report
	}
	return cfg, l.report
}

// loader is the state of one Load.
type loader struct {
	opts    Options
	main    string // absolute path of the main file
	report  *Report
	root    *place
	refs    expander
	digest  digest
	defined []definition
	failed  map[string]bool  // JSON Pointers that have an error
	open    map[*source]bool // files that were warned of: everybody can read their secrets
	broken  bool             // a file is missing from the tree, so much may seem to be
	framed  []pending
	texts   map[string]string // see Config

	passOver bool // drop-ins that may not be read count for nothing
}

// pending is the part of a finding that needs all files: whether a line holds
// a secret is known only when every alias has been followed.
type pending struct {
	finding int
	at      *place
	onKey   bool
}

// newLoader returns the state of a new load; o is complete.
func newLoader(o Options) *loader {
	main := o.Path
	if len(o.Files) > 0 {
		main = o.Files[0].Path
	}
	return &loader{
		opts:   o,
		main:   absolutePath(main),
		report: &Report{},
		failed: map[string]bool{},
		open:   map[*source]bool{},
		texts:  map[string]string{},
		refs:   expander{lookup: o.LookupEnv},
		digest: newDigest(),
	}
}

// merge reads all files into l.root and returns their merged plain values;
// l.root stays nil when there is nothing to go on with.
func (l *loader) merge() map[string]any {
	k := koanf.New("::") // a dot in a key would split it (koanf #328)
	if err := k.Load(rawbytes.Provider(nil), &filesParser{l: l}); err != nil {
		l.file(Finding{Code: codeInternal, Message: "the files cannot be merged"}, &source{name: l.opts.Path})
		return map[string]any{}
	}
	return k.Raw()
}

// filesParser gives koanf all files as one: with each further Load it would
// flatten everything before it once more, and ten thousand drop-ins take minutes.
type filesParser struct{ l *loader }

// Unmarshal reads and merges the files of the loader, as koanf merges.
func (p *filesParser) Unmarshal([]byte) (map[string]any, error) {
	all := map[string]any{}
	for f, err := range p.l.files() {
		if p.l.passes(err) && f.Path != p.l.main {
			continue
		}
		src, ok := p.l.read(f, err)
		if !ok {
			continue
		}
		one := &nodeParser{src: src, report: p.l.add, failed: p.l.failed}
		kmaps.Merge(one.values(), all)
		p.l.defined = append(p.l.defined, definition{f.Path, keysOf(one.place)})
		p.l.root = p.l.root.merge(one.place)
	}
	return all, nil
}

// Marshal implements [koanf.Parser]; nothing is ever written through koanf.
func (p *filesParser) Marshal(map[string]any) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

func (l *loader) load() *Config {
	raw := l.merge()
	if l.root == nil {
		return nil
	}
	tree := l.convert(model(), raw, l.root, nil)
	cfg := &Config{texts: l.texts, main: l.main, defined: l.defined}
	if err := assign(cfg, tree); err != nil {
		l.add(Finding{Code: codeInternal, Message: "the configuration does not fit: " + internalPaths(err)}, l.root, nil, false)
		return nil
	}
	if !l.broken {
		l.validate(cfg)
	}
	return cfg
}

// assign fills the structs from the converted tree. The conversion has already
// refused what does not fit; the strictness here catches a mistake in it, with
// nothing silently dropped.
func assign(cfg *Config, tree any) error {
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:           cfg,
		TagName:          "koanf",
		ErrorUnused:      true,
		WeaklyTypedInput: false,
		MatchName:        func(key, field string) bool { return key == field },
	})
	if err != nil {
		return err
	}
	return dec.Decode(tree)
}

// internalPaths is an error of mapstructure without values.
func internalPaths(err error) string {
	if e, ok := errors.AsType[*mapstructure.DecodeError](err); ok {
		return printable(e.Name())
	}
	return "unknown place"
}

// files are the main file and the drop-ins, read one after the other.
func (l *loader) files() iter.Seq2[File, error] {
	if l.opts.Files != nil {
		if len(l.opts.Files) == 0 {
			l.file(Finding{Code: codeUnreadable, Message: "there is no main file"}, &source{name: l.opts.Path})
		}
		return given(l.opts.Files)
	}
	list := listFiles(l.opts.Path)
	l.digest.listing(&list)
	dir := &source{name: list.dir}
	switch {
	case errors.Is(list.err, errTooMany):
		l.file(Finding{Code: codeTooMany, Message: fmt.Sprintf("there are more than %d drop-ins", maxDropIns)}, dir)
	case list.err != nil && !l.passes(list.err):
		l.file(Finding{Code: codeUnreadable, Message: "the directory of drop-ins cannot be read: " + reason(list.err)}, dir)
	}
	for _, f := range list.ignored {
		l.file(Finding{Severity: SeverityWarning, Code: codeIgnoredFile, Message: "the file is ignored", Suggestion: "the name of a drop-in ends in .yaml"},
			&source{name: f.path, order: f.order})
	}
	return list.read()
}

// passes reports whether a drop-in, or all of them, may be left out for err.
func (l *loader) passes(err error) bool {
	return l.passOver && errors.Is(err, fs.ErrPermission)
}

// read takes a file over, err being why it could not be read, and refuses what
// is not text.
func (l *loader) read(file File, err error) (*source, bool) {
	src := &source{name: file.name(), order: len(l.report.Files)}
	l.report.Files = append(l.report.Files, src.name)
	l.digest.file(file.Path, file.Data, err)
	if err != nil {
		l.file(unreadable(err), src)
		return nil, false
	}
	l.report.Sources = append(l.report.Sources, file)
	src.open = file.Mode.Perm()&0o004 != 0
	src.data = bytes.TrimPrefix(file.Data, []byte("\xef\xbb\xbf"))
	if at := invalidUTF8(src.data); at >= 0 {
		l.file(Finding{Code: codeNotUTF8, Message: "the file is not UTF-8 text", Suggestion: "save it as UTF-8", Line: 1 + bytes.Count(src.data[:at], []byte("\n"))}, src)
		return nil, false
	}
	return src, true
}

// unreadable is the finding for a file that cannot be used as a whole.
func unreadable(err error) Finding {
	f := Finding{Code: codeUnreadable, Message: "the file cannot be read: " + reason(err)}
	switch {
	case errors.Is(err, errDirectory):
		return Finding{Code: codeNotAFile, Message: "this is a directory, not a file", Suggestion: "name the file in it"}
	case errors.Is(err, errNotRegular):
		f.Code = codeNotAFile
	case errors.Is(err, errTooLarge):
		return Finding{Code: codeTooLarge, Message: "the file is larger than " + formatSize(MaxFileBytes)}
	case errors.Is(err, errTooMuch):
		return Finding{Code: codeTooLarge, Message: "with this file the configuration is larger than " + formatSize(maxTotalBytes)}
	case errors.Is(err, errTooMany):
		return Finding{Code: codeTooMany, Message: fmt.Sprintf("there are more than %d drop-ins", maxDropIns)}
	}
	return f
}

// invalidUTF8 is the offset of the first byte that is not UTF-8, or is the
// zero byte that UTF-16 text is full of; -1 when there is none.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return bytes.IndexByte(data, 0)
	}
	at := 0
	for at < len(data) {
		r, n := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return at
}

func (l *loader) file(f Finding, src *source) { l.add(f, &place{src: src}, nil, false) }

// add records a finding about the value at path, or about its key.
func (l *loader) add(f Finding, at *place, path []string, onKey bool) {
	if f.Severity == "" {
		f.Severity = SeverityError
	}
	f.File, f.order = at.src.name, at.src.order
	f.Path = pointer(path)
	if f.Severity == SeverityError {
		l.failed[f.Path] = true
		l.broken = l.broken || f.Path == ""
	}
	l.report.Findings = append(l.report.Findings, f)
	if f.Line == 0 {
		l.framed = append(l.framed, pending{len(l.report.Findings) - 1, at, onKey})
	}
}

// finish adds the frames, sorts, and completes the report.
func (l *loader) finish() {
	for _, p := range l.framed {
		l.report.Findings[p.finding].frameAt(p.at, p.onKey)
	}
	l.report.sort()
	l.report.root = l.root
	l.report.References = l.refs.order
	l.digest.references(l.refs.order, func(path string) ([]byte, error) {
		f := l.refs.files[path]
		return f.data, f.err
	})
	l.report.Digest = l.digest.sum()
}

// runtimeDir and stateDir are where sockets and the queue go by default:
// systemd's RUNTIME_DIRECTORY and STATE_DIRECTORY, the usual places for root,
// and the XDG base directories otherwise. "" when nothing says where.
func (l *loader) runtimeDir() string {
	return l.defaultDir("RUNTIME_DIRECTORY", "/run", "XDG_RUNTIME_DIR", func() string {
		return fmt.Sprintf("/run/user/%d", l.opts.Getuid())
	})
}

func (l *loader) stateDir() string {
	return l.defaultDir("STATE_DIRECTORY", "/var/lib", "XDG_STATE_HOME", func() string {
		if home, _ := l.opts.LookupEnv("HOME"); filepath.IsAbs(home) {
			return filepath.Join(home, ".local/state")
		}
		return ""
	})
}

func (l *loader) defaultDir(systemd, root, xdg string, otherwise func() string) string {
	const name = "peanuts-relay"
	if dirs, _ := l.opts.LookupEnv(systemd); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":") // several, when the unit names several
		return first
	}
	if l.opts.Getuid() == 0 {
		return filepath.Join(root, name)
	}
	// The XDG specification says to ignore relative paths.
	if dir, _ := l.opts.LookupEnv(xdg); filepath.IsAbs(dir) {
		return filepath.Join(dir, name)
	}
	if dir := otherwise(); dir != "" {
		return filepath.Join(dir, name)
	}
	return ""
}
