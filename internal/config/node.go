package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// coreTag reports whether the node has one of the types that configuration
// consists of, and the text that belongs to it.
func coreTag(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp":
		return n.Kind == yaml.ScalarNode
	case "!!map":
		return n.Kind == yaml.MappingNode
	case "!!seq":
		return n.Kind == yaml.SequenceNode
	}
	return false
}

// scalarValue is the value that koanf carries: what kind of scalar it is
// matters later, and is asked of the node then.
func scalarValue(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && decimalForm.MatchString(strings.TrimPrefix(n.Value, "-")) {
			return i
		}
	case "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return f
		}
	}
	return n.Value
}

// wrongType is the finding for a node that k cannot be made of. Only the names
// of types are printed, never the value.
func wrongType(k *key, n *yaml.Node) Finding {
	f := Finding{Code: codeWrongType, structural: true}
	f.Message = "expected " + k.wants() + ", found " + nodeType(n)
	switch {
	case n.Kind == yaml.ScalarNode && k.kind == kindList:
		f.Suggestion = "write a list: [a, b]"
	case isNull(n):
		f.Suggestion = "give it a value, or remove the key"
	}
	return f
}

func nodeType(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int":
		return "a number"
	case "!!float":
		return "a decimal fraction"
	case "!!bool":
		return "true or false"
	}
	return "text"
}

// wants says what a value of k is, with an article.
func (k *key) wants() string {
	switch k.kind {
	case kindObject, kindMap, kindAny, kindJSON:
		return "a map"
	case kindList:
		return "a list"
	case kindWords:
		return "a word or a list of words"
	case kindSignatures:
		return "none, or a list of signatures"
	case kindEnum:
		return "one of " + strings.Join(k.enum, ", ")
	case kindBool:
		return "true or false"
	case kindInt:
		return "a whole number"
	case kindDuration:
		return "a duration such as 30s, 5m or 7d"
	case kindSize:
		return "a size such as 64MiB or 10GiB"
	case kindAutoSize:
		return "auto, or a size such as 512MiB"
	case kindShare:
		return "a percentage such as 50%, or a size"
	case kindMode:
		return `permissions in octal and quotes, such as "0660"`
	case kindEvent:
		return "an event type such as user.created"
	case kindSHA256:
		return "64 hexadecimal digits"
	case kindRejected:
		return "true, false or one of " + strings.Join(k.enum, ", ")
	}
	return "text"
}
