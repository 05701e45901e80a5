package config

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// validateSinkFile checks a plugin's executable: whoever can change it can do
// what the daemon can.
func (l *loader) validateSinkFile(c *Config, s *SinkFile) {
	path := []string{"sinks", s.ID}
	at := under(path, "path")
	bad := func(message, suggestion string) {
		l.problem(at, Finding{Code: codeBadPlugin, Message: message, Suggestion: suggestion})
	}
	if s.ID == SinkHTTP {
		l.problemAtKey(path, Finding{Code: codeBadID, Message: `"http" is the name of the built-in sink`, Suggestion: "choose another name"})
	}
	if c.Plugins.RequireChecksums && s.SHA256 == "" {
		l.problem(under(path, "sha256"), Finding{Code: codeMissingKey, Message: "the sink has no sha256, which plugins.require_checksums asks for"})
	}
	if s.Path == "" {
		if l.failed[pointer(at)] || !filepath.IsAbs(c.Plugins.Dir) {
			return
		}
		s.Path = filepath.Join(c.Plugins.Dir, "peanuts-sink-"+s.ID)
	} else if !l.absolute(at, s.Path) {
		return
	}
	f, err := os.OpenFile(s.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		bad("the plugin cannot be opened: "+reason(err), "")
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
		bad("the plugin is not a regular file", "")
	case info.Mode().Perm()&0o111 == 0:
		bad("the plugin is not executable", "chmod +x")
	case err != nil:
		bad("the directory of the plugin cannot be examined: "+reason(err), "")
	case !l.trusted(info):
		bad("others can change the plugin", "its owner must be root or the daemon's user, and its mode not more than 0755")
	case !l.trusted(dir):
		bad("others can change the directory of the plugin", "its owner must be root or the daemon's user, and its mode not more than 0755")
	case s.SHA256 != "" && checksum(f) != s.SHA256:
		l.problem(under(path, "sha256"), Finding{Code: codeBadPlugin, Message: "the checksum of the plugin is another one", Suggestion: "was it upgraded? see sha256sum"})
	}
}

// trusted reports whether only root and the daemon's own user can write.
func (l *loader) trusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == l.opts.Getuid()) && info.Mode().Perm()&0o022 == 0
}

func checksum(r io.Reader) string {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
