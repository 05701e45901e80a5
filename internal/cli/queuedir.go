package cli

import (
	"fmt"
	"os"

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

// queueDirOfAny is queueDir for a configuration that may be broken: a check of the queue
// must not need one that is valid.
func (a *app) queueDirOfAny() (string, error) {
	const hint = "name the directory of the queue with --dir, or the file with --config"
	path, err := a.configFile()
	if err == nil {
		_, err = os.Stat(path) // that there is none must not lead to another queue
	}
	if err != nil {
		return "", WithExit(ExitConfig, fmt.Errorf("find queue.dir: %w", err), hint)
	}
	if dirs := config.StateDirs(config.Options{Path: path, LookupEnv: a.Env}); len(dirs) > 0 {
		return dirs[0], nil
	}
	return "", WithExit(ExitConfig, fmt.Errorf("%s does not say where the queue is", path), hint)
}
