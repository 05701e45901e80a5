package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/peanutsapp/peanuts-relay/internal/pluginfile"
)

// pluginPrefix begins the name of a plugin's executable in plugins.dir.
const pluginPrefix = "peanuts-sink-"

// PluginFile is where the plugin is that a webhook's sink names. It is false for the
// http sink and for a name that no webhook and no entry of `sinks` has.
func (c *Config) PluginFile(sink string) (SinkFile, bool) {
	f, ok := c.plugins[sink]
	return f, ok
}

// validateSinkFile checks an entry of `sinks`.
func (l *loader) validateSinkFile(c *Config, s *SinkFile) {
	path := []string{"sinks", s.ID}
	at := under(path, "path")
	if s.ID == SinkHTTP {
		l.problemAtKey(path, Finding{Code: codeBadID, Message: `"http" is the name of the built-in sink`, Suggestion: "choose another name"})
	}
	if c.Plugins.RequireChecksums && s.SHA256 == "" {
		l.problem(under(path, "sha256"), Finding{Code: codeMissingKey, Message: "the sink has no sha256, which plugins.require_checksums asks for"})
	}
	c.plugins[s.ID] = *s
	if s.Path == "" {
		if l.failed[pointer(at)] || !filepath.IsAbs(c.Plugins.Dir) {
			return
		}
		s.Path = filepath.Join(c.Plugins.Dir, pluginPrefix+s.ID)
	} else if !l.absolute(at, s.Path) {
		return
	}
	c.plugins[s.ID] = *s
	l.validateExecutable(*s, at, under(path, "sha256"))
}

// validateExecutable checks a plugin's executable by the rules by which it will be opened:
// whoever can change it can do what the daemon can. What is wrong with it is reported at
// the two paths.
func (l *loader) validateExecutable(s SinkFile, at, atSum []string) {
	bad := func(message, suggestion string) {
		l.problem(at, Finding{Severity: l.ofPlugins(), Code: codeBadPlugin, Message: message, Suggestion: suggestion})
	}
	path := l.shownPath(s.Path, at)
	f, err := os.OpenFile(s.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		bad("the plugin"+path+" cannot be opened: "+reason(err), "install it there, or correct the path")
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		bad("the plugin cannot be examined: "+reason(err), "")
		return
	}
	dir, err := os.Stat(filepath.Dir(s.Path))
	switch {
	case !info.Mode().IsRegular():
		bad("the plugin"+path+" is not a regular file", "name the executable itself")
	case info.Mode().Perm()&0o111 == 0:
		bad("the plugin"+path+" is not executable", "chmod 0755 makes it so")
	case err != nil:
		bad("the directory of the plugin cannot be examined: "+reason(err), "")
	case !l.trusted(info):
		bad("others can change the plugin"+path+": "+ownership(info), "its owner must be root or the daemon's user, and its mode not more than 0755")
	case !l.trusted(dir):
		bad("others can change the directory of the plugin"+path+": "+ownership(dir), "its owner must be root or the daemon's user, and its mode not more than 0755")
	default:
		l.checkExecutable(s, path, at, atSum)
	}
}

// checkExecutable is the judgement that counts: by the rules by which the plugin will be
// opened. What validateExecutable says before is worded for the common mistakes.
func (l *loader) checkExecutable(s SinkFile, path string, at, atSum []string) {
	err := pluginfile.Check(s.Path, s.SHA256, l.opts.Getuid())
	if err == nil {
		return
	}
	if other, ok := errors.AsType[*pluginfile.ChecksumError](err); ok {
		l.problem(atSum, Finding{Severity: l.ofPlugins(), Code: codeBadPlugin, Message: "the checksum of the plugin" + path + " is another one: " + other.Is,
			Suggestion: "if it was upgraded, and that is the sum which its author publishes, write it here"})
		return
	}
	message := printable(err.Error())
	if path == "" { // the error has it, or a part of it
		message = "the plugin is refused: it, or a directory or link on the way to it, can be changed by others, or it has rights or a size that it must not have"
	}
	l.problem(at, Finding{Severity: l.ofPlugins(), Code: codeBadPlugin, Message: message})
}

// ofPlugins is how bad it is that an executable is not as it must be.
func (l *loader) ofPlugins() string {
	if l.opts.WithoutPlugins {
		return SeverityWarning
	}
	return SeverityError
}

// shownPath is the path of a plugin after a space, or nothing when the file does not
// say it but refers to it.
func (l *loader) shownPath(path string, at []string) string {
	from := []string{"plugins", "dir"}
	if at[0] == "sinks" && l.present(at) {
		from = at
	}
	if l.present(from) && !l.quotable(from) {
		return ""
	}
	return " " + path
}

// ownership says who can change a file.
func ownership(info fs.FileInfo) string {
	text := fmt.Sprintf("its mode is %04o", info.Mode().Perm())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		text += fmt.Sprintf(", its owner is user %d", st.Uid)
	}
	return text
}

// validatePluginWebhook checks a webhook whose sink is a plugin, but for its
// settings: only the plugin knows what they must be.
func (l *loader) validatePluginWebhook(c *Config, h *Helper, w *WebhookKeys, path []string) {
	if !l.findPlugin(c, w, under(path, "sink")) {
		return
	}
	for _, name := range []string{"url", "headers", "tls"} {
		if l.present(under(path, name)) {
			l.problemAtKey(under(path, name), Finding{Code: codeMisplacedKey, Message: name + " is for the http sink; a plugin has settings",
				Suggestion: "peanuts-relay sinks list --json tells what the plugin takes"})
		}
	}
	if w.Format == "event" {
		l.problem(under(path, "format"), Finding{Code: codeMisplacedKey, Message: "the format event is for the http sink; a plugin gets the event in parts", Suggestion: "remove the key"})
	}
	l.validateSignatures(c, h, w, path)
	settings := under(path, "settings")
	at, exact := l.root.lookup(settings)
	if !exact || l.failed[pointer(settings)] || l.failedBelow(settings) || !at.isMap() {
		return
	}
	var b strings.Builder
	if l.appendJSON(&b, at, settings) {
		c.settings[h.ID+"."+w.ID] = b.String()
	}
}

// findPlugin finds the executable of a sink that no entry of `sinks` declares. It is
// false when there is no such sink.
func (l *loader) findPlugin(c *Config, w *WebhookKeys, path []string) bool {
	if _, known := c.plugins[w.Sink]; known || l.failed[pointer([]string{"sinks", w.Sink})] {
		return true
	}
	s := SinkFile{ID: w.Sink, Path: filepath.Join(c.Plugins.Dir, pluginPrefix+w.Sink)}
	wellNamed := idForm.MatchString(w.Sink)
	if wellNamed && l.opts.WithoutPlugins {
		c.plugins[w.Sink] = s
	}
	if _, err := os.Lstat(s.Path); !wellNamed || errors.Is(err, fs.ErrNotExist) {
		known := slices.DeleteFunc([]string{SinkHTTP, "zapier", "sheets", "slack"}, func(shipped string) bool { return shipped == w.Sink })
		for _, s := range c.Sinks {
			known = append(known, s.ID)
		}
		severity := SeverityError
		if wellNamed {
			severity = l.ofPlugins()
		}
		l.problem(path, Finding{Severity: severity, Code: codeUnknownSink, Message: "there is no sink " + l.named(path, w.Sink, "of that name"),
			Suggestion: suggested(l.quotable(path), w.Sink, append(known, installed(c.Plugins.Dir)...),
				"a plugin is an executable "+pluginPrefix+"<name> in plugins.dir, or an entry under sinks")})
		return severity == SeverityWarning
	}
	c.plugins[w.Sink] = s
	if c.Plugins.RequireChecksums {
		l.problem(path, Finding{Code: codeMissingKey, Message: "the sink has no sha256, which plugins.require_checksums asks for", Suggestion: "declare it under sinks"})
	}
	l.validateExecutable(s, path, path)
	return true
}

// installed lists the plugins in a directory.
func installed(dir string) (names []string) {
	files, _ := filepath.Glob(filepath.Join(dir, pluginPrefix+"*"))
	for _, f := range files {
		names = append(names, strings.TrimPrefix(filepath.Base(f), pluginPrefix))
	}
	return names
}

// trusted reports whether only root and the daemon's own user can write.
func (l *loader) trusted(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == l.opts.Getuid()) && info.Mode().Perm()&0o022 == 0
}
