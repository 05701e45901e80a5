package api

import (
	_ "embed"
	"encoding/json"
	"net/http"
)

// openAPI describes every route and document. It is made from the routes and from the
// comments of package rest by UPDATE_GOLDEN=1 go test -run OpenAPI, and tests hold all
// three, and real answers, to each other. docs/openapi.json is the same.
//
//go:embed openapi.json
var openAPI json.RawMessage

func (a *API) getOpenAPI(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	return openAPI, nil
}
