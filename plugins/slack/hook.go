package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// hook posts to an incoming webhook
// (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).
type hook struct {
	to      string
	secrets *strings.Replacer
	writer  writer
	pacer   *pacer
	client  *http.Client
}

// hookMessage is the body of a request. Links in it are shown as they are.
type hookMessage struct {
	message
	UnfurlLinks bool `json:"unfurl_links"`
	UnfurlMedia bool `json:"unfurl_media"`
}

// Deliver posts a new message, whatever the event.
func (h *hook) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	m, err := h.writer.write(d)
	if err != nil {
		return sinks.Receipt{}, err
	}
	body, err := encode(hookMessage{message: m})
	if err != nil {
		return sinks.Receipt{}, sinks.Reject("bad_message", err)
	}
	if err := h.pacer.take(ctx, h, slot{h.to, h.pacer.every}); err != nil {
		return sinks.Receipt{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.to, bytes.NewReader(body))
	if err != nil {
		return sinks.Receipt{}, errors.New("the request could not be made")
	}
	resp, said, err := post(h.client, req, h.secrets)
	if err != nil {
		return sinks.Receipt{}, err
	}
	receipt, err := h.judge(resp, strings.TrimSpace(string(said)))
	if err != nil {
		if v := sinks.VerdictOf(err); v.Outcome == sinks.OutcomeRateLimited {
			h.pacer.pause(h.to, h, v.After)
		}
		return receipt, err
	}
	receipt.Message = "posted by the incoming webhook"
	return receipt, nil
}

// judge says what an answer means: its text where Slack wrote one
// (https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks),
// else its status.
func (h *hook) judge(resp *http.Response, said string) (sinks.Receipt, error) {
	receipt := sinks.Receipt{Status: resp.StatusCode}
	if resp.StatusCode == http.StatusOK {
		if said == "ok" {
			return receipt, nil
		}
		return receipt, sinks.Retry("bad_answer", 0, errors.New("the incoming webhook was answered with 200, but not with ok"))
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		return refused(resp)
	}
	code, _, _ := strings.Cut(said, "\n")
	if len(code) <= 64 && code != "" && !notWord.MatchString(code) {
		r := &refusal{method: "the incoming webhook", code: code}
		switch v := r.verdict(); {
		case misconfigured(code), sinks.VerdictOf(v).Outcome == sinks.OutcomeRejected:
			return receipt, v
		case resp.StatusCode == http.StatusBadRequest:
			return receipt, sinks.Reject(code, r)
		case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
			return receipt, sinks.Misconfigured(code, r)
		}
	}
	return refused(resp)
}
