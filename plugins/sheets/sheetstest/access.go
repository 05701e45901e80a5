package sheetstest

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const scope = "https://www.googleapis.com/auth/spreadsheets"

// privateKey is of all accounts; making one takes a second of a slow machine.
var privateKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// Key is the JSON key of a service account, as the Google Cloud console gives it out.
// base is where the server is.
func Key(email, base string) string {
	der, err := x509.MarshalPKCS8PrivateKey(privateKey())
	if err != nil {
		panic(err) // it was just made
	}
	key, err := json.MarshalIndent(map[string]string{
		"type":           "service_account",
		"project_id":     "relay-test",
		"private_key_id": "0123456789abcdef",
		"private_key":    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email":   email,
		"client_id":      "100000000000000000001",
		"auth_uri":       "https://accounts.google.com/o/oauth2/auth",
		"token_uri":      strings.TrimSuffix(base, "/") + "/token",
	}, "", "  ")
	if err != nil {
		panic(err) // strings have a JSON form
	}
	return string(key)
}

// token is the JWT bearer grant (RFC 7523) as Google has it.
func (s *Server) token(r *http.Request) (any, *failure) {
	if err := r.ParseForm(); err != nil {
		return nil, refuse("invalid_request", err.Error())
	}
	if r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		return nil, refuse("unsupported_grant_type", "Invalid grant_type: "+r.PostForm.Get("grant_type"))
	}
	parts := strings.Split(r.PostForm.Get("assertion"), ".")
	if len(parts) != 3 {
		return nil, refuse("invalid_grant", "Bad Request")
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil {
			return nil, refuse("invalid_grant", "Bad Request")
		}
		raw[i] = b
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(&privateKey().PublicKey, crypto.SHA256, digest[:], raw[2]) != nil {
		return nil, refuse("invalid_grant", "Invalid JWT Signature.")
	}
	var head struct{ Alg, Typ string }
	var claims struct {
		Iss, Scope, Aud string
		Iat, Exp        int64
	}
	if json.Unmarshal(raw[0], &head) != nil || json.Unmarshal(raw[1], &claims) != nil || head.Alg != "RS256" {
		return nil, refuse("invalid_grant", "Bad Request")
	}
	host := cmp.Or(r.Host, r.URL.Host)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	switch iat, exp := time.Unix(claims.Iat, 0), time.Unix(claims.Exp, 0); {
	case !slices.Contains([]string{"http://" + host + "/token", "https://" + host + "/token"}, claims.Aud):
		return nil, refuse("invalid_grant", "Invalid JWT: Failed audience check.")
	case exp.Sub(iat) > time.Hour+time.Minute || now.After(exp) || iat.After(now.Add(5*time.Minute)):
		return nil, refuse("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.")
	case !slices.Contains(strings.Fields(claims.Scope), scope):
		return nil, refuse("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
	}
	if _, known := s.roles[claims.Iss]; !known {
		return nil, refuse("invalid_grant", "Invalid grant: account not found")
	}
	s.issued++
	value := fmt.Sprintf("ya29.sheetstest-%d-%x", s.issued, digest[:8])
	s.tokens[value] = grant{claims.Iss, now.Add(time.Hour)}
	return map[string]any{"access_token": value, "expires_in": 3599, "token_type": "Bearer"}, nil
}

// refuse is an error of the token endpoint, whose body is another than the API's.
func refuse(code, description string) *failure {
	return &failure{status: 400, state: code, message: description, details: []any{"oauth"}}
}

func unauthenticated() *failure {
	return &failure{status: 401, state: "UNAUTHENTICATED", message: "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.", details: []any{errorInfo("ACCESS_TOKEN_EXPIRED", nil)}}
}

func errorInfo(reason string, metadata map[string]string) any {
	return map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com", "metadata": metadata}
}

func exhausted(metric, limit string) *failure {
	return &failure{
		status: 429, state: "RESOURCE_EXHAUSTED",
		message: fmt.Sprintf("Quota exceeded for quota metric '%s' and limit '%s per minute per user' of service 'sheets.googleapis.com' for consumer 'project_number:100000000001'.", metric, metric),
		details: []any{errorInfo("RATE_LIMIT_EXCEEDED", map[string]string{"service": "sheets.googleapis.com", "quota_limit": limit, "consumer": "projects/100000000001"})},
	}
}

// admit is what comes before every call: the token, the project, the quota, the
// spreadsheet, the permission.
func (s *Server) admit(op Op, id string, serve func(*http.Request) (any, *failure)) func(*http.Request) (any, *failure) {
	return func(r *http.Request) (any, *failure) {
		s.mu.Lock()
		defer s.mu.Unlock()
		now := s.now()
		value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		g, ok := s.tokens[value]
		if !ok || !now.Before(g.until) {
			return nil, unauthenticated()
		}
		if s.disabled {
			return nil, &failure{
				status: 403, state: "PERMISSION_DENIED",
				message: "Google Sheets API has not been used in project 100000000001 before or it is disabled. Enable it by visiting https://console.developers.google.com/apis/api/sheets.googleapis.com/overview?project=100000000001 then retry.",
				details: []any{errorInfo("SERVICE_DISABLED", map[string]string{"service": "sheets.googleapis.com"})},
			}
		}
		metric, limit := "Read requests", "ReadRequestsPerMinutePerUser"
		if op == Write {
			metric, limit = "Write requests", "WriteRequestsPerMinutePerUser"
		}
		if !s.spend(string(op)+" "+g.email, s.limit, now) || !s.spend(string(op), s.project, now) {
			return nil, exhausted(metric, limit)
		}
		role := s.roles[g.email]
		switch {
		case id != s.id:
			return nil, &failure{status: 404, state: "NOT_FOUND", message: "Requested entity was not found."}
		case role == Stranger, role == Viewer && op == Write:
			return nil, &failure{status: 403, state: "PERMISSION_DENIED", message: "The caller does not have permission"}
		}
		return serve(r)
	}
}

// spend takes one of a quota, of any minute.
func (s *Server) spend(quota string, limit int, now time.Time) bool {
	s.used[quota] = slices.DeleteFunc(s.used[quota], func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if len(s.used[quota]) >= limit {
		return false
	}
	s.used[quota] = append(s.used[quota], now)
	return true
}

func writeFailure(w http.ResponseWriter, f *failure) {
	if len(f.details) == 1 && f.details[0] == "oauth" {
		writeJSON(w, f.status, map[string]any{"error": f.state, "error_description": f.message})
		return
	}
	if f.state == "" { // from the front end, before the API
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(f.status)
		fmt.Fprintf(w, "<!DOCTYPE html><html><title>Error %d</title><p>%s</html>", f.status, f.message)
		return
	}
	e := map[string]any{"code": f.status, "message": f.message, "status": f.state}
	if f.details != nil {
		e["details"] = f.details
	}
	writeJSON(w, f.status, map[string]any{"error": e})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone is not ours to mind
}
