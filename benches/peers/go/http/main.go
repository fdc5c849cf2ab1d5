// Server of HTTP in Go, on package net/http.
package main

import (
	"log"
	"net/http"

	"corelane-peers/flags"
)

var body = []byte("Hello, World!")

func plaintext(response http.ResponseWriter, _ *http.Request) {
	header := response.Header()
	header.Set("Server", "Go")
	header.Set("Content-Type", "text/plain")
	// A failed connection concerns its client only.
	_, _ = response.Write(body)
}

func main() {
	listener := flags.Listen("Server of HTTP in Go on net/http, answering GET /plaintext")
	http.HandleFunc("GET /plaintext", plaintext)
	log.Fatal(http.Serve(listener, nil))
}
