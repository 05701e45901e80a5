package secrettest_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/secrettest"
)

func TestTheSearchForSecretsFindsEachForm(t *testing.T) {
	const s = "BearerLiteral/s3cr3t+six=zeta"
	for _, data := range []string{
		"x" + s + "y", url.QueryEscape("a b" + s), hex.EncodeToString([]byte("q" + s)), strings.ToUpper(hex.EncodeToString([]byte(s))),
		base64.StdEncoding.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte("u:" + s + "tail")),
		base64.URLEncoding.EncodeToString([]byte("u" + s)), `{"a":"` + s + `"}`,
	} {
		if len(secrettest.Sightings([]byte(data), secrettest.Forms(s))) == 0 {
			t.Errorf("not found in %q", data)
		}
	}
	if found := secrettest.Sightings([]byte("Bearer ******** of TeamHeaderLiteral-nine-iota"), secrettest.Forms(s)); found != nil {
		t.Errorf("found where it is not: %v", found)
	}
}
