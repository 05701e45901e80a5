package event

import (
	"encoding/json"
	"testing"
)

// The control of all that compares bytes here: data that was read and written anew by the
// standard library, as a careless relay would, is not what the payload must say. Each
// of these is damaged by it, and kept or refused by Parse.
func TestWritingDataAnewAsTheLibraryDoesIsNoticed(t *testing.T) {
	for name, data := range map[string]string{
		"a large number":      `{"n":12345678901234567890}`,
		"a precise number":    `{"n":0.1000000000000000055511151231257827021181583404541015625}`,
		"an order of keys":    `{"b":1,"a":2}`,
		"a lone surrogate":    `{"a":"\ud800"}`,
		"text that is markup": `{"a":"<b>&"}`,
		"a number too large":  `{"n":1e400}`,
		"bytes beyond UTF-8":  "{\"a\":\"\xff\"}",
	} {
		t.Run(name, func(t *testing.T) {
			var v any
			err := json.Unmarshal([]byte(data), &v)
			var anew []byte
			if err == nil {
				anew, err = json.Marshal(v)
			}
			in, refused := Parse([]byte(withData(data)), testNow)
			if refused != nil {
				if err == nil && string(anew) == data {
					t.Errorf("refused, and the library keeps it: %v", refused)
				}
				return
			}
			if string(in.Data) != data {
				t.Errorf("became %s", in.Data)
			}
			if err == nil && string(anew) == string(in.Data) {
				t.Error("the library writes the same: this is no control")
			}
		})
	}
}
