package event

import "github.com/peanutsapp/peanuts-relay/internal/suggest"

// Suggest returns the word of known that was probably meant by word, or "". See
// [suggest.Word].
func Suggest(word string, known []string) string { return suggest.Word(word, known) }
