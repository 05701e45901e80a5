package config

import "github.com/peanutsapp/peanuts-relay/internal/event"

// didYouMean is the word of known that was probably meant by word, as a
// suggestion, or fallback.
func didYouMean(word string, known []string, fallback string) string {
	if near := event.Suggest(word, known); near != "" {
		return "did you mean " + quote(near) + "?"
	}
	return fallback
}
