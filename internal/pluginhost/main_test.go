package pluginhost

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

func TestMain(m *testing.M) {
	zoo.Main()
	goleak.VerifyTestMain(m)
}
