package ingest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

func TestPeersByUser(t *testing.T) {
	own := uint32(os.Geteuid())
	s := serve(t, Options{AllowUIDs: []uint32{own}})
	if resp, body := s.raw(t, post(created("e"))); resp.StatusCode != 202 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	s = serve(t, Options{AllowUIDs: []uint32{own + 1}})
	for _, request := range []string{post(created("e")), postAs(typeNDJSON, created("e"))} {
		resp, body := s.raw(t, request)
		if e := decodeError(t, body).Error; resp.StatusCode != 403 || e.Code != CodePeer || !strings.Contains(e.Message, strconv.Itoa(int(own))) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if len(s.store.all()) != 0 {
		t.Error("an event of a stranger was stored")
	}
}

// childPost is a process of another user.
func childPost(path string) int {
	c, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	io.WriteString(c, post(created("e")))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(resp.StatusCode)
	return 0
}

func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	t.Parallel()
	s := serve(t, Options{AllowUIDs: []uint32{0, 4242}})
	dir := filepath.Dir(s.path)
	for _, p := range []string{s.path, dir, filepath.Dir(dir)} { // t.TempDir is two directories
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for uid, want := range map[uint32]string{4242: "202", 4243: "403"} {
		cmd := testhost.Command(t, uid)
		cmd.Env = append(cmd.Env, "INGEST_TEST_POST="+s.path)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("user %d: %s %v, want %s", uid, out, err, want)
		}
	}
}
