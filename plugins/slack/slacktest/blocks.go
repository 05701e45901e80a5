package slacktest

import (
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf16"
)

// Limits, each with the page that states it.
const (
	maxPostText   = 40_000 // https://docs.slack.dev/reference/methods/chat.postMessage: longer texts are truncated
	maxUpdateText = 4_000  // https://docs.slack.dev/reference/methods/chat.update
	maxBlocks     = 50     // https://docs.slack.dev/reference/block-kit/blocks
	maxBlockID    = 255    // https://docs.slack.dev/reference/block-kit/blocks/section-block
	maxHeader     = 150    // https://docs.slack.dev/reference/block-kit/blocks/header-block
	maxText       = 3_000  // https://docs.slack.dev/reference/block-kit/composition-objects/text-object
	maxFields     = 10     // https://docs.slack.dev/reference/block-kit/blocks/section-block
	maxFieldText  = 2_000  // the same page
	maxElements   = 10     // https://docs.slack.dev/reference/block-kit/blocks/context-block
	// maxAll was measured by others, 13,297 characters in one block and some 125 less with
	// each other block (https://github.com/slackapi/bolt-js/issues/2509).
	maxAll    = 13_297
	blockCost = 125
)

type block struct {
	Type     string  `json:"type"`
	BlockID  *string `json:"block_id"`
	Text     *text   `json:"text"`
	Fields   []text  `json:"fields"`
	Elements []text  `json:"elements"`
}

type text struct {
	Type     string  `json:"type"`
	Text     *string `json:"text"`
	Verbatim *bool   `json:"verbatim"`
	Emoji    *bool   `json:"emoji"`
}

// checker collects what is wrong with blocks, in Slack's words.
type checker struct {
	problems []string
	total    int
}

func (c *checker) add(pointer, problem string) {
	c.problems = append(c.problems, fmt.Sprintf("[ERROR] %s [json-pointer:%s]", problem, pointer))
}

// check is the error of a message's content, "" when there is none.
func check(fallback string, raw json.RawMessage, most int) (code string, problems []string) {
	if length(fallback) > most {
		return "msg_too_long", nil
	}
	if len(raw) == 0 || string(raw) == "null" {
		if fallback == "" {
			return "no_text", nil
		}
		return "", nil
	}
	var blocks []block
	if json.Unmarshal(raw, &blocks) != nil {
		return "invalid_blocks_format", nil
	}
	if len(blocks) == 0 && fallback == "" {
		return "no_text", nil
	}
	var c checker
	if len(blocks) > maxBlocks {
		c.add("/blocks", fmt.Sprintf("no more than %d items allowed", maxBlocks))
	}
	var ids []string
	for i, b := range blocks {
		at := fmt.Sprintf("/blocks/%d", i)
		if b.BlockID != nil {
			if length(*b.BlockID) > maxBlockID {
				c.add(at+"/block_id", fmt.Sprintf("must be less than %d characters", maxBlockID+1))
			}
			if slices.Contains(ids, *b.BlockID) {
				c.add(at+"/block_id", "block_id already exists")
			}
			ids = append(ids, *b.BlockID)
		}
		c.block(at, b)
	}
	if len(c.problems) > 0 {
		return "invalid_blocks", c.problems
	}
	if c.total+blockCost*(len(blocks)-1) > maxAll {
		return "msg_blocks_too_long", nil
	}
	return "", nil
}

func (c *checker) block(at string, b block) {
	switch b.Type {
	case "header":
		if b.Text == nil || b.Text.Type != "plain_text" {
			c.add(at+"/text", "must be of type plain_text")
			return
		}
		c.text(at+"/text", *b.Text, maxHeader)
	case "section":
		if b.Text == nil && len(b.Fields) == 0 {
			c.add(at, "missing required field: text or fields")
		}
		if b.Text != nil {
			c.text(at+"/text", *b.Text, maxText)
		}
		if len(b.Fields) > maxFields {
			c.add(at+"/fields", fmt.Sprintf("no more than %d items allowed", maxFields))
		}
		for i, f := range b.Fields {
			c.text(fmt.Sprintf("%s/fields/%d", at, i), f, maxFieldText)
		}
	case "context":
		if len(b.Elements) == 0 {
			c.add(at+"/elements", "missing required field: elements")
		}
		if len(b.Elements) > maxElements {
			c.add(at+"/elements", fmt.Sprintf("no more than %d items allowed", maxElements))
		}
		for i, e := range b.Elements {
			c.text(fmt.Sprintf("%s/elements/%d", at, i), e, maxText)
		}
	case "divider":
	default:
		c.add(at, "unsupported type: "+b.Type)
	}
}

func (c *checker) text(at string, t text, most int) {
	switch {
	case t.Type != "plain_text" && t.Type != "mrkdwn":
		c.add(at+"/type", "unsupported type: "+t.Type)
	case t.Type == "plain_text" && t.Verbatim != nil:
		c.add(at+"/verbatim", "additional property not allowed")
	case t.Type == "mrkdwn" && t.Emoji != nil:
		c.add(at+"/emoji", "additional property not allowed")
	}
	n := 0
	if t.Text != nil {
		n = length(*t.Text)
	}
	switch c.total += n; {
	case n == 0:
		c.add(at+"/text", "must be more than 0 characters")
	case n > most:
		c.add(at+"/text", fmt.Sprintf("must be less than %d characters", most+1))
	}
}

// length counts UTF-16 code units of the text as it was sent.
func length(s string) int { return len(utf16.Encode([]rune(s))) }
