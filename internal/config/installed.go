package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Installed is what the files say of sinks, and what lies in plugins.dir.
type Installed struct {
	Dir string // plugins.dir
	// Files are the plugins under `sinks` and those in Dir, each once and by name, with
	// their paths. Whether they can be used was not looked at.
	Files []SinkFile
	// Uses are the webhooks by sink, `http` included; a sink that Files lack is one that
	// does not exist.
	Uses map[string][]string
}

// InstalledSinks reads which sinks there are. Like [Listeners] it expands only what these
// keys refer to, and what is wrong elsewhere in the files does not matter: a plugin that
// cannot be used makes the configuration invalid, and is what its caller wants to see.
func InstalledSinks(path string) (Installed, error) {
	l := newLoader(Options{Path: path, LookupEnv: os.LookupEnv, Getuid: func() int { return daemonUser(path) }})
	l.passOver = true
	raw := l.merge()
	cfg := &Config{}
	if l.root != nil {
		tree := map[string]any{}
		for _, name := range []string{"plugins", "sinks"} {
			tree[name] = l.one(name, raw)
		}
		if err := assign(cfg, tree); err != nil {
			l.add(Finding{Code: codeInternal, Message: "the configuration does not fit: " + internalPaths(err)}, l.root, nil, false)
		}
	}
	l.finish()
	about := &Report{}
	for _, f := range l.report.Findings {
		if f.Path == "" || f.Path == "/plugins" || f.Path == "/sinks" || strings.HasPrefix(f.Path, "/plugins/") || strings.HasPrefix(f.Path, "/sinks/") {
			about.Findings = append(about.Findings, f)
		}
	}
	if err := about.Err(); err != nil {
		return Installed{}, err
	}
	return Installed{Dir: cfg.Plugins.Dir, Files: installedFiles(cfg), Uses: sinkUses(raw)}, nil
}

// one converts one key of the file and no other.
func (l *loader) one(name string, raw map[string]any) any {
	k := model().child(name)
	if at := l.root.children[name]; at != nil {
		return l.convert(k, raw[name], at, []string{name})
	}
	return l.absent(k, l.root, []string{name})
}

func installedFiles(c *Config) []SinkFile {
	files := slices.Clone(c.Sinks)
	for n := range files {
		files[n].Path = cmp.Or(files[n].Path, filepath.Join(c.Plugins.Dir, pluginPrefix+files[n].ID))
	}
	found, _ := filepath.Glob(filepath.Join(c.Plugins.Dir, pluginPrefix+"*"))
	for _, path := range found {
		id := strings.TrimPrefix(filepath.Base(path), pluginPrefix)
		if idForm.MatchString(id) && !slices.ContainsFunc(files, func(f SinkFile) bool { return f.ID == id }) {
			files = append(files, SinkFile{ID: id, Path: path})
		}
	}
	slices.SortFunc(files, func(a, b SinkFile) int { return strings.Compare(a.ID, b.ID) })
	return files
}

// sinkUses looks at the merged values as they are: what is of another type than it
// should be is passed over.
func sinkUses(raw map[string]any) map[string][]string {
	uses := map[string][]string{}
	helpers, _ := raw["helpers"].(map[string]any)
	for helper, v := range helpers {
		keys, _ := v.(map[string]any)
		webhooks, _ := keys["webhooks"].(map[string]any)
		for id, v := range webhooks {
			webhook, isMap := v.(map[string]any)
			if !isMap {
				continue
			}
			sink, _ := webhook["sink"].(string)
			sink = cmp.Or(sink, SinkHTTP)
			uses[sink] = append(uses[sink], helper+"."+id)
		}
	}
	for _, list := range uses {
		slices.Sort(list)
	}
	return uses
}

// SettingsFile reads a file with the settings of a plugin and nothing else: a map in YAML
// or JSON. No reference in it is expanded.
func SettingsFile(text []byte) (map[string]any, error) {
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if settings == nil {
		return map[string]any{}, nil
	}
	return settings, nil
}
