// Package secrettest looks for secrets in what a test has collected.
//
// Guarantee: a secret is found as it is and in every form in which programs usually pass
// text on: quoted by JSON or a URL, as hexadecimal, and in base64 at whatever offset.
package secrettest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// Forms are the ways in which a secret can look, by name.
func Forms(secret string) map[string]string {
	quoted, _ := json.Marshal(secret) // a string can always be
	forms := map[string]string{
		"plain": secret, "query-escaped": url.QueryEscape(secret), "path-escaped": url.PathEscape(secret),
		"json": string(quoted[1 : len(quoted)-1]), "hex": hex.EncodeToString([]byte(secret)),
		"HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
	}
	for skip := range 3 {
		// The same bytes look different at each of three offsets; the characters
		// that depend on the neighbours are left out.
		padded := append(make([]byte, skip), secret...)
		padded = padded[:len(padded)-len(padded)%3]
		from := (skip*4 + 2) / 3
		forms[fmt.Sprintf("base64+%d", skip)] = base64.StdEncoding.EncodeToString(padded)[from:]
		forms[fmt.Sprintf("base64url+%d", skip)] = base64.URLEncoding.EncodeToString(padded)[from:]
	}
	if key, err := base64.StdEncoding.DecodeString(secret); err == nil {
		forms["decoded"] = string(key)
	}
	return forms
}

// Sightings are the names of the forms that are in data.
func Sightings(data []byte, forms map[string]string) (found []string) {
	for name, form := range forms {
		if bytes.Contains(data, []byte(form)) {
			found = append(found, name)
		}
	}
	return found
}
