package adminclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Audit has the daemon compare its books with its rows, and returns what it found.
// progress, which may be nil, hears about twice a second how far that is.
func (c *Client) Audit(ctx context.Context, progress func(rest.AuditProgress)) (rest.Audit, error) {
	var found rest.Audit
	resp, err := c.do(ctx, "GET", "/v1/audit", nil, nil)
	if err != nil {
		return found, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine<<4) // the last has all webhooks
	for lines.Scan() {
		var line rest.AuditLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return found, fmt.Errorf("decode answer: %w", err)
		}
		switch {
		case line.Audit != nil:
			// The daemon is done when the answer has ended, and then takes the next.
			if lines.Scan() {
				return found, errors.New("the answer goes on after the audit")
			}
			return *line.Audit, nil
		case line.Error != nil:
			return found, &Error{Status: resp.StatusCode, Code: line.Error.Code, Message: line.Error.Message, Field: line.Error.Field}
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
	if err := lines.Err(); err != nil {
		return found, c.explain(ctx, err)
	}
	return found, errors.New("the answer ends before the audit does")
}

// AuditEvents says what became of events that somebody believes accepted, at most
// 1000.
func (c *Client) AuditEvents(ctx context.Context, ids []string) (rest.AuditAccounts, error) {
	return call[rest.AuditAccounts](ctx, c, "POST", "/v1/audit/events", nil, rest.AuditIDs{IDs: ids})
}

// Backup opens the stream of a backup. The caller closes it. That all of it came only
// the backup itself can say.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.do(ctx, "GET", "/v1/backup", nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
