module github.com/peanutsapp/peanuts-relay

go 1.26

require pgregory.net/rapid v1.3.0

require (
	code.dny.dev/ssrf v0.3.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
)
