package main

import (
	"strings"
	"unicode/utf16"
)

// Limits of Block Kit. Slack does not say what a character is; here it is a UTF-16 code
// unit of the escaped text, the strictest of the usual readings.
const (
	maxHeader    = 150  // https://docs.slack.dev/reference/block-kit/blocks/header-block
	maxSection   = 3000 // https://docs.slack.dev/reference/block-kit/blocks/section-block
	maxFields    = 10   // the same page: items of "fields"
	maxFieldText = 2000 // the same page: text of one of them
	maxBlocks    = 50   // https://docs.slack.dev/reference/block-kit/blocks
	maxContext   = 3000 // a text object (https://docs.slack.dev/reference/block-kit/composition-objects/text-object)
	maxBlockID   = 255  // https://docs.slack.dev/reference/block-kit/blocks/section-block

	// maxMessage is for all text together. Slack documents 12,000 for Markdown blocks and
	// enforces somewhat more for all, less with each block
	// (https://github.com/slackapi/bolt-js/issues/2509): blockCost is what one was seen to
	// take away there, fieldCost is on the safe side.
	maxMessage = 12_000
	blockCost  = 130
	fieldCost  = 60
)

// message is the body of an incoming webhook, and part of that of the Web API's methods.
type message struct {
	Text   string  `json:"text"` // what notifications show
	Blocks []block `json:"blocks"`
}

type block struct {
	Type     string `json:"type"`
	BlockID  string `json:"block_id,omitempty"`
	Text     *text  `json:"text,omitempty"`
	Fields   []text `json:"fields,omitempty"`
	Elements []text `json:"elements,omitempty"`
}

type text struct {
	Type string `json:"type"`
	Text string `json:"text"`
	// Verbatim keeps Slack from making links, channels and mentions of what looks like one.
	Verbatim bool `json:"verbatim,omitempty"`
}

func plain(s string) text  { return text{Type: "plain_text", Text: s} }
func mrkdwn(s string) text { return text{Type: "mrkdwn", Text: s, Verbatim: true} }

// escape makes data of s: these three characters are all that Slack's markup begins and
// ends with (https://docs.slack.dev/messaging/formatting-message-text#escaping). Control
// characters, which nobody sees, are dropped.
func escape(s string) string {
	s = strings.Map(func(r rune) rune {
		if (r < ' ' && r != '\n' && r != '\t') || r == 0x7f {
			return -1
		}
		return r
	}, s)
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// line makes one line of s, which holds no character that changes the direction of what
// stands beside it.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		if (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// units counts as Slack at most does.
func units(s string) int {
	n := 0
	for _, r := range s {
		n += max(1, utf16.RuneLen(r))
	}
	return n
}

// prefix is how many bytes of s are at most n units.
func prefix(s string, n int) int {
	for i, r := range s {
		if n -= max(1, utf16.RuneLen(r)); n < 0 {
			return i
		}
	}
	return len(s)
}

// clip is the beginning of raw data that is sure to be enough for most units; escaping
// only makes it longer.
func clip(s string, most int) string { return s[:prefix(s, most+1)] }

// cut shortens markup to at most most units, by whole characters and with an ellipsis.
func cut(s string, most int) string {
	end := prefix(s, most)
	if end == len(s) {
		return s
	}
	end = prefix(s, most-1)
	return strings.TrimRight(s[:whole(s[:end])], " \n") + "…"
}

// whole is how much of s, the beginning of some markup, ends neither in an entity nor
// in <…>.
func whole(s string) int {
	end := len(s)
	if i := strings.LastIndexByte(s[max(0, end-5):], '&'); i >= 0 {
		if at := max(0, end-5) + i; !strings.Contains(s[at:], ";") {
			end = at
		}
	}
	if i := strings.LastIndexByte(s[:end], '<'); i >= 0 && !strings.Contains(s[i:end], ">") {
		end = i
	}
	return end
}

// pieces splits markup into parts of at most most units, at line breaks where there are.
func pieces(s string, most int) []string {
	var out []string
	for {
		end := prefix(s, most)
		if end == len(s) {
			break
		}
		end = max(whole(s[:end]), 1)
		next := end
		if i := strings.LastIndexByte(s[:end], '\n'); i > end/2 {
			end, next = i, i+1
		}
		if part := s[:end]; strings.TrimSpace(part) != "" {
			out = append(out, part)
		}
		s = s[next:]
	}
	if strings.TrimSpace(s) != "" {
		out = append(out, s)
	}
	return out
}
