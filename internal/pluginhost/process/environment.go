package process

import (
	"slices"
	"strings"
)

// passed names the variables of the host that a plugin gets, and nothing else: what it
// needs to speak TLS, to find a proxy, and to tell the time in words.
func passed() []string {
	return append(proxies(), "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy")
}

// proxies names the variables that hold the address of a proxy.
func proxies() []string { return []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} }

// environment is what a plugin gets of the host's variables, and what go-plugin adds.
// hidden names those that a user and a password were taken out of: what starts a process
// is readable in /proc by whatever runs as the same user, each other plugin included, and
// is inherited by whatever the plugin starts.
func environment(host, added []string) (env, hidden []string) {
	for _, name := range passed() {
		for _, v := range host {
			value, found := strings.CutPrefix(v, name+"=")
			if !found {
				continue
			}
			if slices.Contains(proxies(), name) {
				var had bool
				if value, had = withoutUser(value); had {
					hidden = append(hidden, name)
				}
			}
			env = append(env, name+"="+value)
		}
	}
	return append(env, added...), hidden
}

// withoutUser takes the user and the password out of the address of a proxy, and reports
// whether there were any. Addresses come with a scheme or without; neither can have an @
// anywhere else, but a password that somebody forgot to escape can.
func withoutUser(address string) (string, bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, false
	}
	scheme, _, ok := strings.Cut(address[:at], "://")
	if !ok || strings.Contains(scheme, ":") {
		return address[at+1:], true
	}
	return scheme + "://" + address[at+1:], true
}
