package cli

// style writes escape sequences, or none.
type style struct{ on bool }

// SGR parameters of ECMA-48, section 8.3.117.
const (
	sgrRed    = "31"
	sgrGreen  = "32"
	sgrYellow = "33"
	sgrBold   = "1"
	sgrFaint  = "2"
)

func (a *app) outStyle() style { return style{a.colour(a.OutTerm)} }
func (a *app) errStyle() style { return style{a.colour(a.ErrTerm)} }

// colour follows https://no-color.org: any value of NO_COLOR but the empty one
// switches colour off.
func (a *app) colour(t Terminal) bool {
	return t.Colour && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"
}

func (s style) paint(sgr, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

func (s style) bad(text string) string   { return s.paint(sgrRed, text) }
func (s style) good(text string) string  { return s.paint(sgrGreen, text) }
func (s style) warn(text string) string  { return s.paint(sgrYellow, text) }
func (s style) bold(text string) string  { return s.paint(sgrBold, text) }
func (s style) faint(text string) string { return s.paint(sgrFaint, text) }

// status paints the word that a delivery's or webhook's state is.
func (s style) status(word string) string {
	switch word {
	case "success", "active", "ok", "delivered", "ready":
		return s.good(word)
	case "failed", "stopped", "rejected", "misconfigured", "suspended":
		return s.bad(word)
	case "held", "pending", "in_flight", "degraded", "stopping", "retry", "no_space", "starting", "backoff", "draining":
		return s.warn(word)
	}
	return word
}
