package process

import (
	"slices"
	"testing"
)

func TestAPluginGetsTheAddressOfAProxyWithoutItsPassword(t *testing.T) {
	for _, c := range []struct{ given, want string }{
		{"http://proxy.example.com:3128", "http://proxy.example.com:3128"},
		{"http://user:word@proxy.example.com:3128", "http://proxy.example.com:3128"},
		{"https://user@proxy.example.com/", "https://proxy.example.com/"},
		{"socks5://user:w%40rd@[2001:db8::1]:1080", "socks5://[2001:db8::1]:1080"},
		{"user:word@proxy.example.com:3128", "proxy.example.com:3128"},
		{"proxy.example.com:3128", "proxy.example.com:3128"},
		{"http://user:w@rd/#?@proxy.example.com:3128", "http://proxy.example.com:3128"},
		{"user:w://rd@proxy.example.com", "proxy.example.com"},
		{"", ""},
	} {
		for _, name := range proxies() {
			env, hidden := environment([]string{"SECRET=x", name + "=" + c.given}, []string{"ADDED=1"})
			if want := []string{name + "=" + c.want, "ADDED=1"}; !slices.Equal(env, want) {
				t.Errorf("%s=%s became %q, want %q", name, c.given, env, want)
			}
			if (len(hidden) == 1) != (c.given != c.want) {
				t.Errorf("%s=%s is reported as %v", name, c.given, hidden)
			}
		}
	}
}
