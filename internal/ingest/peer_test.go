package ingest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
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
	for p := s.path; p != "/tmp" && p != "/"; p = p[:strings.LastIndexByte(p, '/')] {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	exe := t.TempDir() + "/post" // the test binary's own directory is root's alone
	if b, err := os.ReadFile(os.Args[0]); err != nil || os.WriteFile(exe, b, 0o755) != nil || os.Chmod(exe[:len(exe)-5], 0o755) != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]string{4242: "202", 4243: "403"} {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "INGEST_TEST_POST="+s.path)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("user %d: %s %v, want %s", uid, out, err, want)
		}
	}
}
