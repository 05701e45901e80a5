package cli

import (
	"fmt"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

// queueDir is the directory of the queue that the configuration names.
func (a *app) queueDir() (string, error) {
	const hint = "name the directory with --dir; peanuts-relay check says what is wrong with the file"
	path, err := a.configFile()
	if err != nil {
		return "", err
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: a.Env, WithoutPlugins: true})
	if err := report.Err(); err != nil {
		return "", WithExit(ExitConfig, fmt.Errorf("find queue.dir: %w", err), hint)
	}
	return cfg.Queue.Dir, nil
}
