// Package flags is what the peers in Go share: flags, the listener, and the announcement.
package flags

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
)

// Listen parses the command line and listens as it says. A bad flag ends the process with status 2, as package flag
// does, and an address that is in use with status 1.
func Listen(about string) net.Listener {
	addr := flag.String("addr", "127.0.0.1:7000", "address to listen on; port 0 takes a free one")
	threads := flag.Int("threads", runtime.NumCPU(), "threads that run Go code (GOMAXPROCS)")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "%s\n\n", about)
		flag.PrintDefaults()
	}
	flag.Parse()
	if *threads < 1 || flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "%s: --threads: at least 1, and no arguments beside the flags\n", os.Args[0])
		os.Exit(2)
	}
	if _, err := net.ResolveTCPAddr("tcp", *addr); err != nil {
		fmt.Fprintf(os.Stderr, "%s: --addr: %v\n", os.Args[0], err)
		os.Exit(2)
	}
	runtime.GOMAXPROCS(*threads)
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: cannot listen on %s: %v\n", os.Args[0], *addr, err)
		os.Exit(1)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	return listener
}
