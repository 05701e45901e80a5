package internal_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.yaml.in/yaml/v3"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// series are the names under which samples come, each with its labels: what the manual
// has, which package api compares with a scrape, and what the libraries add.
func series(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{"up": nil}
	row := regexp.MustCompile("(?m)^\\| `(peanuts_relay_[a-z_]+)` \\| (\\w+) \\| ([`a-z_ ]*) \\|")
	for _, r := range row.FindAllStringSubmatch(docstest.Page(t, "api.md"), -1) {
		labels := strings.Fields(strings.ReplaceAll(r[3], "`", ""))
		switch r[2] {
		case "histogram":
			all[r[1]+"_bucket"] = append(labels, "le")
			fallthrough
		case "summary":
			all[r[1]+"_sum"], all[r[1]+"_count"] = labels, labels
		default:
			all[r[1]] = labels
		}
	}
	if len(all) < 40 {
		t.Fatalf("only %d series in the manual", len(all))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		all[f.GetName()] = nil
	}
	return all
}

var (
	selector = regexp.MustCompile(`\b((?:peanuts_relay|go|process)_\w+|up)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping = regexp.MustCompile(`\b(?:by|on)\s*\(([^)]*)\)`)
)

// checkExpr holds an expression to the series that there are.
func checkExpr(t *testing.T, where, expr string, known map[string][]string) {
	t.Helper()
	used := selector.FindAllStringSubmatch(expr, -1)
	if len(used) == 0 {
		t.Errorf("%s uses no metric: %s", where, expr)
	}
	has := []string{"instance", "job"} // of whatever is scraped
	for _, u := range used {
		labels, ok := known[u[1]]
		if !ok {
			t.Errorf("%s uses %s, which is not there", where, u[1])
		}
		has = append(has, labels...)
		for _, m := range matcher.FindAllStringSubmatch(u[2], -1) {
			if !slices.Contains(append(labels, "instance", "job"), m[1]) {
				t.Errorf("%s asks %s for the label %s, which it does not have", where, u[1], m[1])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(has, label) {
				t.Errorf("%s groups by %s, which none of its metrics has", where, label)
			}
		}
	}
}

// alerts are the rules that the manual offers.
func alerts(t *testing.T) (names []string, exprs map[string]string) {
	t.Helper()
	var doc struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	readYAML(t, "../docs/monitoring/alerts.yml", &doc)
	exprs = map[string]string{}
	for _, g := range doc.Groups {
		for _, r := range g.Rules {
			names, exprs[r.Alert] = append(names, r.Alert), r.Expr
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s has severity %q, %v", r.Alert, r.Labels["severity"], r.Annotations)
			}
		}
	}
	if len(names) < 15 || len(exprs) != len(names) {
		t.Fatalf("%d alerts, %d of them different", len(names), len(exprs))
	}
	return names, exprs
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestAlertsUseMetricsThatThereAreAndTheManualHasEachAlert(t *testing.T) {
	names, exprs := alerts(t)
	known := series(t)
	for _, name := range names {
		checkExpr(t, name, exprs[name], known)
	}
	var listed []string
	for _, r := range regexp.MustCompile("(?m)^\\| `(PeanutsRelay\\w+)` \\|").FindAllStringSubmatch(docstest.Page(t, "monitoring.md"), -1) {
		listed = append(listed, r[1])
	}
	if !slices.Equal(listed, names) {
		t.Errorf("docs/monitoring.md has the alerts %q, want %q", listed, names)
	}
}

// The tests of the rules are data for promtool. That each has an instance for which the
// alert fires, and another for which it must not, is seen without it.
func TestEachAlertIsTestedToFireAndNotTo(t *testing.T) {
	var doc struct {
		Tests []struct {
			Name   string
			Series []struct{ Series string } `yaml:"input_series"`
			Rules  []struct {
				Name     string `yaml:"alertname"`
				Expected []struct {
					Labels map[string]string `yaml:"exp_labels"`
				} `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, "../docs/monitoring/alerts.test.yml", &doc)
	var tested []string
	for _, test := range doc.Tests {
		instances := map[string]bool{}
		for _, s := range test.Series {
			instances[regexp.MustCompile(`instance="(\w+)"`).FindStringSubmatch(s.Series)[1]] = true
		}
		if len(test.Rules) != 1 || test.Rules[0].Name != test.Name || len(test.Rules[0].Expected) != 1 ||
			test.Rules[0].Expected[0].Labels["instance"] != "a" || !instances["a"] || !instances["b"] {
			t.Errorf("%s: instances %v, expected %+v", test.Name, instances, test.Rules)
		}
		tested = append(tested, test.Name)
	}
	if names, _ := alerts(t); !slices.Equal(tested, names) {
		t.Errorf("there are tests of %q, want %q", tested, names)
	}
}

func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), testhost.Program(t, "promtool"), args...).CombinedOutput()
	return string(out), err
}

func TestTheAlertsDoWhatTheirTestsSay(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "../docs/monitoring/alerts.yml"}, {"test", "rules", "../docs/monitoring/alerts.test.yml"}} {
		if out, err := promtool(t, args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// dashboard is what Grafana needs of the file that it imports.
type dashboard struct {
	Inputs []struct {
		Name, Type, PluginID string
	} `json:"__inputs"`
	ID            *int
	UID, Title    string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type, Definition string
			Query                  struct{ Query string }
			Datasource             datasource
		}
	}
	Panels []panel
}

type datasource struct{ Type, UID string }

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Datasource  datasource
	Targets     []struct {
		Expr, RefID string
		Datasource  datasource
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile("../docs/monitoring/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// input is the data source that Grafana asks for at the import.
var input = datasource{"prometheus", "${DS_PROMETHEUS}"}

func TestTheDashboardIsWhatGrafanaImports(t *testing.T) {
	d := readDashboard(t)
	if len(d.Inputs) != 1 || d.Inputs[0].Name != "DS_PROMETHEUS" || d.Inputs[0].Type != "datasource" || d.Inputs[0].PluginID != "prometheus" {
		t.Errorf("the inputs are %+v", d.Inputs)
	}
	if d.ID != nil || d.UID == "" || d.Title == "" || d.SchemaVersion < 30 || len(d.Panels) < 10 {
		t.Errorf("id %v, uid %q, title %q, schema %d, %d panels", d.ID, d.UID, d.Title, d.SchemaVersion, len(d.Panels))
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.ID < 1 || ids[p.ID] || p.Title == "" {
			t.Errorf("panel %q has the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q is at %d, %d, where %q is", p.Title, x, y, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if !slices.Contains([]string{"stat", "timeseries", "table"}, p.Type) || p.Datasource != input || len(p.Targets) == 0 {
			t.Errorf("panel %q: type %s, data source %v, %d targets", p.Title, p.Type, p.Datasource, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if target.RefID == "" || refs[target.RefID] || target.Datasource != input {
				t.Errorf("panel %q has the target %+v", p.Title, target)
			}
			refs[target.RefID] = true
		}
	}
}

func TestTheDashboardUsesMetricsAndVariablesThatThereAre(t *testing.T) {
	d, known := readDashboard(t), series(t)
	variables := []string{"$__rate_interval"}
	values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range d.Templating.List {
		m := values.FindStringSubmatch(v.Query.Query)
		if v.Type != "query" || v.Datasource != input || m == nil || v.Definition != v.Query.Query {
			t.Errorf("the variable %+v cannot be asked for", v)
			continue
		}
		checkExpr(t, "$"+v.Name, m[1]+" by ("+m[2]+")", known)
		variables = append(variables, "$"+v.Name)
	}
	variable := regexp.MustCompile(`\$\w+`)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			checkExpr(t, p.Title, target.Expr, known)
			for _, v := range variable.FindAllString(target.Expr, -1) {
				if !slices.Contains(variables, v) {
					t.Errorf("panel %q uses %s", p.Title, v)
				}
			}
		}
	}
}

// The expressions are rules for this: promtool checks no dashboards.
func TestTheExpressionsOfTheDashboardAreWellFormed(t *testing.T) {
	var text strings.Builder
	text.WriteString("groups:\n- name: dashboard\n  rules:\n")
	write := func(n int, expr string) {
		expr = strings.NewReplacer("$__rate_interval", "5m", "$job", "j", "$instance", "i", "$helper", "h", "$webhook", "w").Replace(expr)
		fmt.Fprintf(&text, "  - {record: 'panel:%d', expr: '%s'}\n", n, strings.ReplaceAll(expr, "'", "''"))
	}
	n := 0
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			n++
			write(n, target.Expr)
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	check := func() (string, error) {
		if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return promtool(t, "check", "rules", file)
	}
	if out, err := check(); err != nil || n < 20 {
		t.Errorf("%d expressions, %v\n%s", n, err, out)
	}
	write(0, "sum by (webhook) (rate(up[5m])") // a bracket is missing: it must be noticed
	if _, err := check(); err == nil {
		t.Error("promtool takes anything")
	}
}
