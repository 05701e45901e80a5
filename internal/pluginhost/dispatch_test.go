package pluginhost_test

import (
	"github.com/peanutsapp/peanuts-relay/internal/dispatch"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
)

// What the dispatcher looks for in a sink, it finds by asking the value: an instance that
// lacked a method would be called as if it were any other sink.
var (
	_ dispatch.BatchSink = (*pluginhost.Instance)(nil)
	_ dispatch.Governed  = (*pluginhost.Instance)(nil)
)
