package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxHandshake is the length of the longest handshake line, in bytes.
	maxHandshake = 4 << 10
	// shownLine is how much of a line that is no handshake is shown.
	shownLine = 200
)

// parseHandshake reads the first line of a plugin's standard output,
//
//	1|1|unix|/path/of/socket|grpc
//
// with an empty sixth field or none, and returns the path of the socket. go-plugin sees
// only what passed here: it follows a path that leads anywhere, dials TCP, and dies of a
// certificate that it did not ask for.
func parseHandshake(line, dir string) (socket string, err error) {
	fields := strings.Split(strings.TrimSpace(line), "|")
	if len(fields) < 5 || len(fields) > 6 {
		return "", fmt.Errorf("the first line on its standard output is no handshake: %s", shown(line))
	}
	core, protocol, network, path, kind := fields[0], fields[1], fields[2], fields[3], fields[4]
	switch {
	case core != "1":
		return "", fmt.Errorf("its handshake has version %s of go-plugin, which is not supported; only 1 is", shown(core))
	case protocol != "1":
		return "", fmt.Errorf("it speaks version %s of the sink protocol; this relay speaks 1", shown(protocol))
	case kind != "grpc":
		return "", fmt.Errorf("it speaks %s; only grpc is supported", shown(kind))
	case network != "unix":
		return "", fmt.Errorf("it listens on the network %s; only unix is allowed", shown(network))
	case len(fields) == 6 && fields[5] != "":
		return "", errors.New("its handshake has a certificate, which was not asked for")
	case filepath.Clean(path) != path || filepath.Dir(path) != dir:
		return "", fmt.Errorf("its socket %s is not in the directory that it was given, %s", shown(path), dir)
	}
	return path, nil
}

// checkSocket makes sure that the path that a plugin names is a socket, and no link to
// one elsewhere.
func checkSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("its socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("its socket %s is no socket", path)
	}
	return nil
}

func shown(text string) string {
	if len(text) > shownLine {
		return fmt.Sprintf("%q…", text[:shownLine])
	}
	return fmt.Sprintf("%q", text)
}
