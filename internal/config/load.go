package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"
)

const (
	// DefaultPath is where the file is when nobody says otherwise.
	DefaultPath = "/etc/peanuts-relay/config.yaml"
	// PathVariable is the environment variable that names the file.
	PathVariable = "PEANUTS_RELAY_CONFIG"

	dropInDir = "conf.d"
	// maxFileBytes bounds one file; 4096 webhooks with long headers take 2 MB.
	maxFileBytes = 10 << 20
	// maxDropIns bounds the directory.
	maxDropIns = 10_000
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
	// LookupEnv reads the environment; nil is os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Getuid is the user of the daemon, for the defaults of the paths and the
	// owners of plugins; nil is os.Getuid.
	Getuid func() int
}

// Load reads, merges, expands and checks the configuration. The Config is nil
// when the Report has errors; the Report never is. Concurrent calls are
// independent of each other.
func Load(o Options) (*Config, *Report) {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.Getuid == nil {
		o.Getuid = os.Getuid
	}
	l := newLoader(o)
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
	report  *Report
	sources []*source
	root    *place
	refs    expander
	digest  hash.Hash
	failed  map[string]bool  // JSON Pointers that have an error
	open    map[*source]bool // files that were warned of: everybody can read their secrets
	broken  bool             // a file is missing from the tree, so much may seem to be
	framed  []pending
	texts   map[string]string // see Config
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
	return &loader{
		opts:   o,
		report: &Report{},
		failed: map[string]bool{},
		open:   map[*source]bool{},
		texts:  map[string]string{},
		refs:   expander{lookup: o.LookupEnv},
		digest: sha256.New(),
	}
}

// merge reads all files into l.root and returns their merged plain values;
// l.root stays nil when there is nothing to go on with.
func (l *loader) merge() map[string]any {
	k := koanf.New("::") // a dot in a key would split it (koanf #328)
	for _, path := range l.files() {
		src, ok := l.read(path)
		if !ok {
			continue
		}
		p := &nodeParser{src: src, report: l.add, failed: l.failed}
		if err := k.Load(rawbytes.Provider(src.data), p); err != nil {
			l.file(Finding{Code: codeInternal, Message: "the file cannot be merged"}, src)
			continue
		}
		l.root = l.root.merge(p.place)
	}
	return k.Raw()
}

func (l *loader) load() *Config {
	raw := l.merge()
	if l.root == nil {
		return nil
	}
	tree := l.convert(model(), raw, l.root, nil)
	cfg := &Config{texts: l.texts}
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

// files lists the main file and the drop-ins beside it.
func (l *loader) files() []string {
	files := []string{l.opts.Path}
	dir := filepath.Join(filepath.Dir(l.opts.Path), dropInDir)
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return files
	case err != nil:
		l.file(Finding{Code: codeUnreadable, Message: "the directory of drop-ins cannot be read: " + reason(err)}, &source{name: dir})
		return files
	}
	for _, e := range entries { // sorted by name
		name := e.Name()
		switch {
		case strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#"):
			// What editors leave behind: .x.yaml.swp, .#x.yaml, #x.yaml#.
		case strings.HasSuffix(name, ".yaml"):
			files = append(files, filepath.Join(dir, name))
		case strings.HasSuffix(name, ".yml"):
			l.file(Finding{Severity: SeverityWarning, Code: codeIgnoredFile, Message: "the file is ignored", Suggestion: "the name of a drop-in ends in .yaml"},
				&source{name: filepath.Join(dir, name), order: len(files)})
		}
	}
	if len(files) > maxDropIns+1 {
		l.file(Finding{Code: codeTooMany, Message: fmt.Sprintf("there are more than %d drop-ins", maxDropIns)}, &source{name: dir})
		files = files[:1]
	}
	return files
}

// read reads one file and refuses what is not text.
func (l *loader) read(path string) (*source, bool) {
	src := &source{name: path, order: len(l.sources)}
	l.sources = append(l.sources, src)
	l.report.Files = append(l.report.Files, path)
	data, mode, err := readRegular(path, maxFileBytes)
	if err != nil {
		f := Finding{Code: codeUnreadable, Message: "the file cannot be read: " + reason(err)}
		switch {
		case errors.Is(err, errDirectory):
			f = Finding{Code: codeNotAFile, Message: "this is a directory, not a file", Suggestion: "name the file in it"}
		case errors.Is(err, errNotRegular):
			f.Code = codeNotAFile
		case errors.Is(err, errTooLarge):
			f = Finding{Code: codeTooLarge, Message: "the file is larger than " + formatSize(maxFileBytes)}
		}
		l.file(f, src)
		return nil, false
	}
	l.hash(path, data)
	src.open = mode.Perm()&0o004 != 0
	src.data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if at := invalidUTF8(src.data); at >= 0 {
		l.file(Finding{Code: codeNotUTF8, Message: "the file is not UTF-8 text", Suggestion: "save it as UTF-8", Line: 1 + bytes.Count(src.data[:at], []byte("\n"))}, src)
		return nil, false
	}
	return src, true
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

// hash adds a file to the digest, with lengths, so that moving bytes from one
// file to the next changes it.
func (l *loader) hash(path string, data []byte) {
	fmt.Fprintf(l.digest, "%d:%s%d:", len(path), path, len(data))
	l.digest.Write(data)
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
		node := p.at.val
		if p.at.alias != nil {
			node = p.at.alias
		}
		// A map or list in block style begins on a later line than its key.
		if (p.onKey || node == nil || node.Kind == yaml.MappingNode || node.Kind == yaml.SequenceNode) && p.at.key != nil {
			node = p.at.key
		}
		if node == nil || node.Line == 0 {
			continue
		}
		f := &l.report.Findings[p.finding]
		f.Line, f.Column = node.Line, max(node.Column, 1)
		f.frame = p.at.src.frame(node)
	}
	l.report.sort()
	for _, path := range l.refs.order {
		l.reference(path)
		l.hash(path, l.refs.files[path].data)
	}
	l.report.Digest = hex.EncodeToString(l.digest.Sum(nil))
}

// reference notes a file that the configuration depends on.
func (l *loader) reference(path string) {
	if !slices.Contains(l.report.References, path) {
		l.report.References = append(l.report.References, path)
	}
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
