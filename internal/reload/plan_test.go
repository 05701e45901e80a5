package reload

import (
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const two = `
helpers:
  crm:
    secret: aaaaaaaaaaaaaaaaaaaaaaaa
    webhooks:
      main: {url: "http://127.0.0.1:8081/a"}
      off: {url: "http://127.0.0.1:8081/b", enabled: false}
`

// candidate replaces the main file by text.
func candidate(text string) *rest.PlanRequest {
	return &rest.PlanRequest{Files: []rest.PlanFile{{Role: rest.RoleMain, Name: "/home/op/new.yaml", Content: text}}}
}

func TestAPlanSaysWhatFollowsForDeliveries(t *testing.T) {
	s := newSite(t, two)
	s.outlooks["crm.main"] = Outlook{Pending: 12}
	s.outlooks["crm.back"] = Outlook{Pending: 3}
	s.outlooks["crm.moved"] = Outlook{Pending: 4, Moved: true}
	with := func(line string) string { return two + "      " + line + "\n" }
	instead := func(old, now string) string { return strings.Replace(two, old, now, 1) }
	for name, c := range map[string]struct {
		text, webhook  string
		pending        int64
		events, queued string
	}{
		"a new one":                     {with(`new: {url: "http://127.0.0.1:1/"}`), "crm.new", 0, "are queued for it", ""},
		"a new one that is disabled":    {with(`new: {url: "http://127.0.0.1:1/", enabled: false}`), "crm.new", 0, "are not queued for it: it is disabled", ""},
		"one that comes back":           {with(`back: {url: "http://127.0.0.1:1/"}`), "crm.back", 3, "are queued for it", "of before go on"},
		"one that comes back disabled":  {with(`back: {url: "http://127.0.0.1:1/", enabled: false}`), "crm.back", 3, "are not queued for it: it is disabled", "are held (disabled) until it is enabled"},
		"one that comes back elsewhere": {with(`moved: {url: "http://127.0.0.1:1/"}`), "crm.moved", 4, "are queued for it", "of before are held (returned)"},
		"removed":                       {instead(`      main: {url: "http://127.0.0.1:8081/a"}`+"\n", ""), "crm.main", 12, "are no longer queued for it", "are held (removed) for 7 days"},
		"removed with its helper":       {instead("  crm:", "  other:"), "crm.main", 12, "are refused: the helper is unknown", "are held (removed) for 7 days"},
		"disabled":                      {instead(`8081/a"`, `8081/a", enabled: false`), "crm.main", 12, "are not queued for it", "are held (disabled) until it is enabled"},
		"enabled":                       {instead("enabled: false", "enabled: true"), "crm.off", 0, "are queued for it", "go on"},
		"another url":                   {instead("8081/a", "8082/a"), "crm.main", 12, "", "use the new values from the next attempt on"},
		"another secret":                {instead("aaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbb"), "crm.main", 12, "", "use the new values from the next attempt on"},
		"other events":                  {instead(`8081/a"`, `8081/a", events: create`), "crm.main", 12, "are queued when the changed events list them", "go on, listed or not"},
		"another url of a disabled one": {instead("8081/b", "8082/b"), "crm.off", 0, "", "stay held (disabled) until it is enabled, then use the new values"},
	} {
		got, err := s.Plan(t.Context(), candidate(c.text))
		if err != nil || !got.Valid {
			t.Errorf("%s: %v\n%s", name, err, got.Report)
			continue
		}
		found := false
		for _, w := range got.Webhooks {
			if w.Webhook != c.webhook {
				continue
			}
			found = true
			if w.Pending != c.pending || w.NewEvents != c.events || !strings.HasPrefix(w.Queued, c.queued) || (c.queued == "") != (w.Queued == "") {
				t.Errorf("%s: %+v", name, w)
			}
		}
		if !found {
			t.Errorf("%s: nothing of %s in %+v", name, c.webhook, got.Webhooks)
		}
	}
	if s.commits() != 0 || s.Generation() != 1 || len(s.Entries().Entries) != 1 {
		t.Error("a plan changed what runs")
	}
}

func TestAPlanOfWhatRunsIsEmpty(t *testing.T) {
	s := newSite(t, two)
	for _, req := range []*rest.PlanRequest{{}, candidate(two), candidate("# a comment\n" + two)} {
		got, err := s.Plan(t.Context(), req)
		if err != nil || !got.Valid || len(got.Changes) != 0 || len(got.Webhooks) != 0 || got.RestartRequired == nil {
			t.Errorf("%v %+v", err, got)
		}
	}
}

func TestAPlanOfOneFileKeepsTheOthers(t *testing.T) {
	s := newSite(t, two)
	s.write("conf.d/50-more.yaml", "helpers: {crm: {webhooks: {more: {url: \"http://127.0.0.1:8083/\"}}}}\n")
	s.run()
	got, err := s.Plan(t.Context(), candidate(two))
	if err != nil || len(got.Changes) != 0 {
		t.Errorf("the main file alone: %v %+v", err, got.Changes)
	}
	got, err = s.Plan(t.Context(), &rest.PlanRequest{Files: []rest.PlanFile{{Role: "50-more.yaml", Content: "log: {level: debug}\n"}}})
	if err != nil || len(got.Changes) != 2 {
		t.Errorf("a drop-in: %v %+v", err, got.Changes)
	}
	all := candidate(two)
	all.Replace = true
	if got, err = s.Plan(t.Context(), all); err != nil || len(got.Changes) != 1 || got.Changes[0].ID != "crm.more" || got.Changes[0].Change != rest.ChangeRemoved {
		t.Errorf("everything: %v %+v", err, got.Changes)
	}
}

func TestAPlanOfABrokenFileShowsWhereItIsBroken(t *testing.T) {
	s := newSite(t, two)
	got, err := s.Plan(t.Context(), candidate(two+"nonsense: 1\n"))
	if err != nil || got.Valid || len(got.Changes) != 0 || len(got.Findings) != 1 || got.Findings[0].File != "/home/op/new.yaml" ||
		!strings.Contains(got.Report, "/home/op/new.yaml:8:1") {
		t.Errorf("%v %+v", err, got)
	}
	if s.Degraded() != "" {
		t.Error("a plan that is invalid is not a rejected reload")
	}
}

func TestACandidateThatMakesNoSenseIsRefused(t *testing.T) {
	s := newSite(t, two)
	for name, req := range map[string]*rest.PlanRequest{
		"nothing instead of everything": {Replace: true},
		"no main file":                  {Replace: true, Files: []rest.PlanFile{{Role: "50-a.yaml", Content: "log: {}"}}},
		"one role twice":                {Files: []rest.PlanFile{{Role: rest.RoleMain, Content: two}, {Role: rest.RoleMain, Content: two}}},
		"a path as a role":              {Files: []rest.PlanFile{{Role: "../x.yaml", Content: two}}},
		"no drop-in":                    {Files: []rest.PlanFile{{Role: "x.txt", Content: two}}},
		"no role":                       {Files: []rest.PlanFile{{Content: two}}},
	} {
		if got, err := s.Plan(t.Context(), req); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAnAddedKeyThatNeedsARestartIsPlannedAsOne(t *testing.T) {
	s := newSite(t, two)
	got, err := s.Plan(t.Context(), candidate(two+"listen: {events_mode: \"0600\"}\n"))
	if err != nil || len(got.Changes) != 1 || !got.Changes[0].Restart || len(got.RestartRequired) != 1 {
		t.Errorf("%v %+v", err, got)
	}
}
