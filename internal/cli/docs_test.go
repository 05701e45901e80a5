package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

// documents are the pages that a user reads, by their path in the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(paths) < 4 {
		t.Fatalf("only %d pages found: %v", len(paths), err)
	}
	sinks, err := filepath.Glob(filepath.Join(root, "docs", "sinks", "*.md"))
	if err != nil || len(sinks) == 0 {
		t.Fatalf("no pages about sinks: %v", err)
	}
	examples, err := filepath.Glob(filepath.Join(root, "docs", "examples", "*", "README.md"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples of sinks: %v", err)
	}
	paths = slices.Concat(paths, sinks, examples)
	pages := map[string]string{}
	for _, p := range append(paths, filepath.Join(root, "README.md"), filepath.Join(root, "config.example.yaml")) {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		pages[strings.TrimPrefix(filepath.ToSlash(p), "../../")] = string(text)
	}
	return pages
}

// ours finds what is written as a command line: at the beginning of a line or of
// `inline code`, after a prompt, a comment sign, a variable, "|" or xargs.
var ours = regexp.MustCompile("(?m)(?:^(?:[ #$]*|[A-Z_]+=\\S* |.*\\| ?(?:xargs )?)|`)peanuts-relay( [^`\n]*)?(?:`|$)")

// commandLines are the arguments of every command line of our program in text.
func commandLines(text string) [][]string {
	var lines [][]string
	for _, m := range ours.FindAllStringSubmatch(text, -1) {
		if args := shellWords(m[1]); len(args) > 0 {
			lines = append(lines, args)
		}
	}
	return lines
}

// shellWords splits like a shell, up to the end of the first command or to the
// explanation that stands after it, three blanks away.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	quote, begun := rune(0), false
	end := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	line, _, _ = strings.Cut(strings.TrimSpace(line), "   ")
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ':
			end()
		case strings.ContainsRune("|<>;&#)", r) && !begun:
			return words
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	return words
}

// parses reports what the program would say of the arguments before it does
// anything.
func parses(args []string) error {
	root := (&app{}).root()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if help, _ := cmd.Flags().GetBool("help"); help {
		return nil
	}
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

func TestCommandLinesOfTheDocumentationParse(t *testing.T) {
	found := 0
	for name, page := range documents(t) {
		for _, args := range commandLines(page) {
			found++
			if err := parses(args); err != nil {
				t.Errorf("%s: peanuts-relay %s: %v", name, strings.Join(args, " "), err)
			}
		}
	}
	if found < 13 {
		t.Errorf("only %d command lines found", found)
	}
	for _, bad := range []string{"deliverys", "send --helpr x", "delivery", "status now"} {
		if parses(shellWords(bad)) == nil {
			t.Errorf("%q was not noticed", bad)
		}
	}
}

func TestExamplesOfTheHelpParse(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if n := len(commandLines(c.Example)); n < 2 && !strings.Contains(c.Example, "<(") {
			t.Errorf("%s: %d examples:\n%s", c.CommandPath(), n, c.Example)
		}
		for _, args := range commandLines(c.Example) {
			if err := parses(args); err != nil {
				t.Errorf("%s: peanuts-relay %s: %v", c.CommandPath(), strings.Join(args, " "), err)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).root())
}

// documentedEnv is what the pages tell the reader to set.
func documentedEnv(name string) (string, bool) {
	v, ok := map[string]string{
		"EXPENSES_SECRET": "0123456789abcdef0123456789abcdef",
		"PARTNER_TOKEN":   "0123456789abcdef",
	}[name]
	return v, ok
}

// loads checks text as the whole configuration of a machine on which the files
// that the pages mention exist.
func loads(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"expenses.secret": "0123456789abcdef0123456789abcdef", "old": "0123456789abcdef0123456789abcdef", "new": "0123456789abcdef0123456789abcdef",
		"make.url": "https://hook.eu2.make.com/abcdef", "n8n.token": "0123456789abcdef",
		"slack-url": "https://hooks.slack.com/services/T0/B0/abcdef", "slack.url": "https://hooks.slack.com/services/T0/B0/abcdef", "slack.token": "xoxb-0123456789",
		"google.json": `{"type":"service_account"}`, "ntfy.topic": "expenses-Zw3f8Qk1", "zap.url": "https://hooks.zapier.com/hooks/catch/1/abcdef/",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The plugins of a page: what they are, only a start of them could tell. Their own tests
	// hold the settings to their schemas.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"acme", "sqlite", "ntfy", "zapier", "sheets", "slack"} {
		if err := os.WriteFile(filepath.Join(dir, "peanuts-sink-"+name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(text, "plugins:") {
		text += "\nplugins: {dir: " + dir + "}\n"
	}
	text = strings.NewReplacer("/opt/acme/", dir+"/", "/opt/peanuts-sinks/", dir+"/", "/usr/lib/peanuts-relay/sinks", dir).Replace(text)
	path := filepath.Join(dir, "config.yaml")
	text = strings.ReplaceAll(text, "/etc/peanuts-relay/", dir+"/")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, report := config.Load(config.Options{Path: path, LookupEnv: documentedEnv, Getuid: func() int { return 0 }})
	if report.Err() != nil {
		var b strings.Builder
		_ = report.WriteText(&b, false)
		t.Errorf("%s", b.String())
	}
}

func TestConfigurationsOfTheDocumentationAreValid(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```")
	// What a page shows of one webhook, in the middle of a sentence.
	fragment := regexp.MustCompile("`((?:signatures|secrets?|format|retry|concurrency): [^`]+)`")
	blocks, fragments := 0, 0
	for name, page := range documents(t) {
		t.Run(name, func(t *testing.T) {
			for _, m := range block.FindAllStringSubmatch(page, -1) {
				blocks++
				loads(t, m[1])
			}
			if strings.HasSuffix(name, ".yaml") {
				blocks++
				loads(t, page)
			}
			for _, m := range fragment.FindAllStringSubmatch(page, -1) {
				fragments++
				secret := "\n        secret: bWlQamE4WjRTeDBrR1ZPd3JxM2Z0RzlKYUx5dU5zSGQ="
				if strings.HasPrefix(m[1], "secret") || m[1] == "signatures: none" {
					secret = ""
				}
				loads(t, "helpers:\n  expenses:\n    webhooks:\n      backend:\n        url: https://api.example.com/peanuts"+secret+"\n        "+m[1]+"\n")
			}
		})
	}
	if blocks < 2 || fragments < 4 {
		t.Errorf("only %d blocks and %d fragments found", blocks, fragments)
	}
}
