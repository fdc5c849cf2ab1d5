// Echo server in Go with a goroutine for each connection, as package net is meant to be used.
package main

import (
	"bufio"
	"flag"
	"log"
	"net"
	"time"

	"corelane-peers/flags"
)

// How long to leave the accept queue alone when out of descriptors.
const acceptRetry = 100 * time.Millisecond

var (
	buffer   = flag.Int("buffer", 16384, "bytes of a connection's buffer")
	buffered = flag.Bool("bufio", false, "read and write through package bufio, with a buffer for each direction")
)

func main() {
	listener := flags.Listen("Echo server in Go, a goroutine for each connection")
	serve := echo
	if *buffered {
		serve = echoBuffered
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Print(err)
			time.Sleep(acceptRetry)
			continue
		}
		go serve(connection)
	}
}

// A failed connection concerns its client only.
func echo(connection net.Conn) {
	defer connection.Close()
	bytes := make([]byte, *buffer)
	for {
		count, err := connection.Read(bytes)
		if count > 0 {
			if _, err := connection.Write(bytes[:count]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func echoBuffered(connection net.Conn) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, *buffer)
	writer := bufio.NewWriterSize(connection, *buffer)
	for {
		// Whatever has arrived, once there is something.
		if _, err := reader.Peek(1); err != nil {
			return
		}
		bytes, _ := reader.Peek(reader.Buffered())
		if _, err := writer.Write(bytes); err != nil {
			return
		}
		if _, err := reader.Discard(len(bytes)); err != nil {
			return
		}
		if err := writer.Flush(); err != nil {
			return
		}
	}
}
