package main

import (
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// verdict is what a refusal means. The codes are those of
// https://docs.slack.dev/reference/methods/chat.postMessage, chat.update and chat.delete.
// One that is not known is tried again: it is Slack's newest, and may pass.
func (r *refusal) verdict() error {
	switch r.code {
	case "msg_too_long", "no_text", "msg_blocks_too_long", "invalid_blocks", "invalid_blocks_format",
		"invalid_arguments", "invalid_arg_name", "invalid_array_arg", "invalid_json", "json_not_object",
		"invalid_charset", "invalid_form_data", "invalid_post_type", "missing_post_type",
		"invalid_attachments", "too_many_attachments", "block_mismatch", "markdown_text_conflict",
		// Of editing and removing, when nothing else could be done about them.
		"message_not_found", "cant_update_message", "cant_delete_message", "edit_window_closed",
		"is_inactive", "compliance_exports_prevent_deletion", "streaming_state_conflict":
		return sinks.Reject(r.code, r)
	case "message_limit_exceeded":
		// Too many messages of the whole workspace; Slack does not say for how long.
		return sinks.RateLimited(5*time.Minute, r)
	case "internal_error", "fatal_error", "request_timeout", "service_unavailable", "update_failed",
		"team_added_to_org", "org_login_required", "external_channel_migrating":
		return sinks.Retry(r.code, 0, r)
	}
	if misconfigured(r.code) {
		return sinks.Misconfigured(r.code, r)
	}
	return sinks.Retry(r.code, 0, r)
}

// misconfigured are the codes that only a change of the settings, of the app or of the
// channel ends.
func misconfigured(code string) bool {
	switch code {
	case "channel_not_found", "not_in_channel", "is_archived", "channel_is_archived", "channel_type_not_supported",
		"messages_tab_disabled", "cannot_dm_bot", "user_not_found", "no_permission", "access_denied", "accesslimited",
		"invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive",
		"missing_scope", "not_allowed_token_type", "two_factor_setup_required", "team_access_not_granted",
		"team_not_found", "ekm_access_denied", "enterprise_is_restricted",
		"deprecated_endpoint", "method_deprecated", "unknown_method", "as_user_not_supported",
		// Of incoming webhooks.
		"action_prohibited", "invalid_token", "no_team", "team_disabled", "no_service", "no_service_id",
		"no_active_hooks", "posting_to_general_channel_denied":
		return true
	}
	return strings.HasPrefix(code, "restricted_action") || strings.HasPrefix(code, "slack_connect_")
}

// hint says what to do about a code.
func hint(code string) string {
	switch {
	case code == "not_in_channel":
		return "invite the app: type /invite and its name in the channel"
	case code == "channel_not_found":
		return "write the channel's id into the settings, and invite the app when the channel is private"
	case code == "is_archived", code == "channel_is_archived", code == "is_inactive":
		return "the channel was archived; unarchive it, or name another"
	case code == "invalid_auth", code == "not_authed", code == "token_revoked", code == "account_inactive", code == "token_expired":
		return "the token is not valid any more; install the app again and write its new bot token into the settings"
	case code == "missing_scope", code == "no_permission", code == "not_allowed_token_type":
		return "add the scope chat:write to the app, install it again and use its bot token"
	case strings.HasPrefix(code, "restricted_action"), code == "action_prohibited", code == "posting_to_general_channel_denied", code == "ekm_access_denied":
		return "the workspace does not let the app post there; an administrator can change that"
	case code == "no_service", code == "no_service_id", code == "invalid_token", code == "no_team", code == "team_disabled", code == "no_active_hooks":
		return "the incoming webhook was removed or disabled; add a new one and write its URL into the settings"
	case code == "edit_window_closed", code == "cant_update_message", code == "cant_delete_message":
		return "the workspace's settings or another author of the message do not allow it"
	case code == "compliance_exports_prevent_deletion":
		return "the workspace keeps all messages; use on_delete: strike"
	}
	return ""
}
