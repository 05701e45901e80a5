package sinktest

import (
	"maps"
	"slices"
)

// checks are all of them, in the order in which they run: what a check needs comes
// before it. Draining ends the sink in process, and the search for secrets looks at all
// that was said before: both are last.
func (s *suite) checks() []check {
	list := []check{
		{name: "describe", run: checkDescribe, why: "the relay finds a sink by its name, and shows the rest to the operator"},
		{name: "describe-is-pure", run: checkDescribeIsPure, why: "the relay describes before there are settings, and compares what a reload would change"},
		{name: "schema", run: checkSchema, why: "`peanuts-relay check` compares the settings with it and points to the line that is wrong"},
		{name: "schema-secrets", run: checkSchemaSecrets, why: "what is not writeOnly is shown by `peanuts-relay config show`"},
		{name: "capabilities", run: checkCapabilities, why: "the relay calls a sink as its capabilities say"},

		{name: "settings", run: checkSettings, why: "settings that are right must be taken"},
		{name: "settings-unknown-key", run: checkUnknownKey, why: "a key that is misspelt must not be passed over in silence"},
		{name: "settings-missing", run: checkMissing, why: "what is required must be asked for before the first delivery"},
		{name: "settings-wrong-type", run: checkWrongType, why: "a value of another type must be refused where it stands"},
		{name: "settings-not-an-object", run: checkNotAnObject, why: "settings are a JSON object"},
		{name: "settings-bad", run: checkBad, why: "what the schema cannot refuse the sink has to"},
		{name: "configure-refuses", run: checkConfigureRefuses, why: "bad settings must not replace good ones: what Validate refuses Configure refuses too"},

		{name: "instances", run: checkInstances, why: "a reload configures, replaces and closes instances while the process goes on"},
		{name: "unknown-instance", run: checkUnknownInstance, why: "a delivery must not go out under settings that are gone"},
		{name: "instances-are-independent", run: checkIndependent, why: "a slow webhook must not slow down another one of the same sink"},

		{name: "events", run: checkEvents, why: "a sink has to take every kind of event: created, updated, deleted, without a user, a sample of an operator"},
		{name: "results", run: checkResults, why: "the relay sends a delivery without a result again"},
		{name: "exact", run: checkExact, why: "what an entry says must not change on the way: numbers beyond 2^53, any language"},
		{name: "large", run: checkLarge, why: "events are up to 1 MiB, and calls up to 3 MiB"},
		{name: "attempts", run: checkAttempts, why: "a later attempt is the same delivery again"},
		{name: "resend", run: checkResend, why: "the relay delivers at least once; whoever is idempotent says so and must be"},
		{name: "order", run: checkOrder, why: "deliveries of one entry come in order and must go out so"},
		{name: "state", run: checkState, why: "state is how an update finds what the create made"},
		{name: "done-when-answered", run: checkDoneWhenAnswered, why: "what is answered as delivered is never sent again: it must be there"},
		{name: "unexpected", run: checkUnexpected, why: "a later relay may leave out or send what this sink does not know"},
		{name: "panic", run: checkPanic, why: "one bad delivery must not end the deliveries of others"},

		{name: "concurrent", run: checkConcurrent, why: "calls come at the same time, as many as max_concurrency says"},
		{name: "cancel", run: checkCancel, why: "a call that nobody waits for must end within 1 s: the relay stops or reloads"},
		{name: "deadline", run: checkDeadline, why: "an attempt has the time that the webhook's timeout gives it"},
		{name: "health", run: checkHealth, why: "the relay asks every 15 s and kills a sink that does not answer three times"},
		{name: "health-while-busy", run: checkHealthWhileBusy, why: "a sink that waits for a slow service is not ill"},
	}
	for _, name := range s.faultNames() {
		list = append(list, check{name: "answer-" + name, run: func(p *probe) { p.checkAnswer(name) },
			why: "what the service answers decides whether and when the relay tries again"})
	}
	list = append(list, check{name: "recovers", run: checkRecovers, why: "when the service is well again, so must the sink be"})
	if s.binary != nil {
		list = append(list, binaryChecks()...)
	}
	return append(list,
		check{name: "drain", run: checkDrain, why: "an upgrade waits for what is under way, and sends nothing to the old process afterwards"},
		check{name: "secrets", run: checkSecrets, why: "logs, errors and messages are read by people who must not know them"})
}

// faultNames are those of the suite and those that Options add.
func (s *suite) faultNames() []string {
	names := ownFaults()
	for _, name := range slices.Sorted(maps.Keys(s.o.Faults)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
