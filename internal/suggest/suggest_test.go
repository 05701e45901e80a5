package suggest

import (
	"strings"
	"testing"
)

func TestWordFindsSlipsOfThePen(t *testing.T) {
	for _, row := range []struct{ word, known, want string }{
		{"", "a b", ""}, {"x", "", ""}, {"amount", "amount", "amount"},
		{"amuont", "category amount", "amount"}, {"Amount", "amount", "amount"}, {"amounts", "amount", "amount"},
		{"mount", "amount", "amount"}, {"amount", "mounts date", "mounts"}, {"a", "b", ""}, {"id", "ip", "ip"}, {"id", "xy", ""},
		{"dta", "data date", "data"}, {"date", "data dates", "data"}, {"zürihc", "zürich", "zürich"},
		{"backend", "expenses.backend other.backend", "expenses.backend"}, {"bakcend", "expenses.backend", "expenses.backend"},
		{"expense.backend", "expenses.backend", "expenses.backend"}, {"a.backend", "expenses.backend", ""},
		{"completely", "different", ""}, {"entry.created", "entry.deleted entry.created", "entry.created"},
		{strings.Repeat("a", 65), strings.Repeat("a", 65), ""}, {"aaaa", strings.Repeat("a", 65), ""},
	} {
		if got := Word(row.word, strings.Fields(row.known)); got != row.want {
			t.Errorf("Word(%q, %q) = %q, want %q", row.word, row.known, got, row.want)
		}
	}
	for _, row := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"ab", "ba", 1}, {"ca", "abc", 3}, {"kitten", "sitting", 3}, {"éa", "aé", 1}} {
		if a, b := distance(row.a, row.b), distance(row.b, row.a); a != row.want || b != row.want {
			t.Errorf("distance of %q and %q is %d, and %d the other way, want %d", row.a, row.b, a, b, row.want)
		}
	}
}
