package http1

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// link is a TCP connection with both ends: ours as a Conn.
func link(t testing.TB) (ours *Conn, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); other.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	_ = other.SetDeadline(time.Now().Add(patience))
	return NewConn(carried{nc, NewSocket(nc)}), other.(*net.TCPConn)
}

// carried tells of the socket under it.
type carried struct {
	net.Conn
	socket *Socket
}

func (c carried) Socket() *Socket { return c.socket }

// Read goes through the socket, which may be asked not to wait.
func (c carried) Read(p []byte) (int, error) { return c.socket.Read(p) }

// tlsLink is link with TLS of one version over it, after the handshake.
func tlsLink(t testing.TB, version uint16) (ours *Conn, theirs *tls.Conn) {
	t.Helper()
	plain, other := link(t)
	socket := plain.socket
	client := tls.Client(socket, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
	server := tls.Server(other, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, MaxVersion: version})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if v := client.ConnectionState().Version; v != version {
		t.Fatalf("TLS version %x", v)
	}
	return NewConn(secured{client, socket}), server
}

type secured struct {
	*tls.Conn
	socket *Socket
}

func (c secured) Socket() *Socket { return c.socket }

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// eventually waits until an idle connection has become what it should be: a
// packet takes its time even on loopback.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatal(what)
		}
		<-time.After(time.Millisecond)
	}
}
